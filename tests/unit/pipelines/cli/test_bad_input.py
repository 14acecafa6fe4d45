import socket
import tarfile
from pathlib import Path

import pytest

from pipelines.cli.main import run

pytestmark = pytest.mark.usefixtures("workspace")


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Run a command that must exit with 2, and return the one line behind its progress."""
    assert run(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    *before, line = captured.err.splitlines()
    assert line.startswith("error: ")
    assert "; " in line  # what is wrong; what to do
    assert not [other for other in before if other.startswith("error: ")]
    return line


@pytest.mark.parametrize(
    "arguments",
    [
        ["mine", "--input", "no-such-folder", "--output", "o"],
        ["pack", "no-such-folder", "--output", "o"],
        ["train", "--pairs", "no-such-folder", "--output", "o"],
        ["evaluate", "--predictor", "no-such-folder", "--pairs", "p", "--output", "o"],
        ["register", "--predictor", "no-such-folder", "--report", "r.json"],
        ["run", "--recipe", "pictures", "--set", "pack_folder=no-such-folder"],
        ["promote", "--workspace", "no-such-folder"],
        ["rollback", "--workspace", "no-such-folder"],
        ["versions", "--workspace", "no-such-folder"],
    ],
)
def test_a_missing_folder(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert "no-such-folder" in refused(arguments, capsys)


@pytest.mark.parametrize("kind", ["tar without members", "no bytes"])
@pytest.mark.usefixtures("ray_cluster")
def test_an_empty_shard(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "shards"
    folder.mkdir()
    shard = folder / "empty.tar"
    if kind == "no bytes":
        shard.touch()
    else:
        tarfile.open(shard, "w").close()
    line = refused(["mine", "--input", str(folder), "--output", str(tmp_path / "o")], capsys)
    assert str(folder) in line


def test_an_unknown_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(["run", "--recipe", "quikstart"], capsys)
    assert "quikstart" in line
    assert "pictures, quickstart, stylegrid, zimage-64gpu, zimage-8gpu" in line


def test_a_recipe_field_of_the_wrong_type(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\ndescription: x\ncorpus: {num_styles: lots}\nmining: {}\n")
    line = refused(["run", "--recipe", str(path)], capsys)
    assert "corpus.num_styles (lots)" in line
    assert "valid integer" in line
    assert str(path) in line


def test_a_grid_without_contents(capsys: pytest.CaptureFixture[str]) -> None:
    held_out = ["--set", "corpus.held_out_contents=[ball]"]
    line = refused(["corpus", "--output", "o", "--contents", "1", *held_out], capsys)
    assert "corpus.num_contents (1) leaves none" in line


def test_an_output_that_cannot_be_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    output = tmp_path / "file" / "x"
    small = ["--styles", "1", "--contents", "1"]
    line = refused(["corpus", "--output", str(output), *small], capsys)
    assert str(output) in line
    assert "cannot be written: Not a directory" in line


def test_pictures_need_a_folder(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--set pack_folder=FOLDER" in refused(["run", "--recipe", "pictures"], capsys)


def test_a_workspace_that_is_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "file"
    path.touch()
    assert str(path) in refused(["run", "--workspace", str(path)], capsys)


def test_an_unknown_tracking_scheme(capsys: pytest.CaptureFixture[str]) -> None:
    assert "tracking.uri" in refused(["versions", "--set", "tracking.uri=mlflow.db"], capsys)


def test_a_demo_that_cannot_be_reached_loads_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    demo = ["demo", "--predictor", "no-such-folder"]
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        assert f"--port ({port}) is taken; name another" in refused([*demo, "--port", port], capsys)
    for host in ("192.0.2.1", "no such host", "x" * 70, "[::1::]"):
        line = refused([*demo, "--host", host], capsys)
        assert f"--host ({host}) is no address of this machine" in line
    assert "write [::1]" in refused([*demo, "--host", "::1"], capsys)
    assert "no-such-folder" in refused(demo, capsys)
