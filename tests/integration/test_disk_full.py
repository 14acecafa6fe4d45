"""A full disk is one line, exit code 2 and no half file, whoever wrote."""

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from i2l_model import atomic
from jobs import storage
from jobs.corpus.stylegrid import CorpusConfig, write_corpus
from jobs.progress import NullProgress
from pipelines.cli import failures
from pipelines.cli.main import run

ON_A_SMALL_DISK = """
mount -t tmpfs -o size=1m none "$1" || exit 77
shift
"$@"
code=$?
find "$PAIRS" -type f
exit $code
"""
LINE = "error: the disk is full ("


@pytest.fixture
def pictures(workspace: Path) -> Path:
    """Four pictures of about 750 KiB."""
    folder = workspace / "pictures"
    folder.mkdir()
    for number in range(4):
        pixels = np.random.default_rng(number).integers(0, 255, (512, 512, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"red boat {number}.png")
    return folder


def test_a_disk_that_fills_up_is_one_line(pictures: Path, tmp_path: Path) -> None:
    if shutil.which("unshare") is None:
        pytest.skip("no unshare, with which the test mounts a small disk of its own")
    disk = tmp_path / "disk"
    disk.mkdir()
    found = on_a_small_disk(disk, ["pack", str(pictures), "--output", str(disk)], tmp_path)
    assert found.returncode == 2, found.stderr
    progress = ("list ", "pack ")
    lines = [line for line in found.stderr.splitlines() if not line.startswith(progress)]
    assert len(lines) == 1
    assert lines[0].startswith(LINE)
    assert lines[0].endswith("); free space, then run i2l pack again")
    assert found.stdout == ""  # no file was left


def on_a_small_disk(
    disk: Path, arguments: list[str], folder: Path
) -> subprocess.CompletedProcess[str]:
    """A run of the command line that sees 1 MiB of space at ``disk``, and the files it left."""
    i2l = [sys.executable, "-m", "pipelines.cli.main", *arguments]
    command = ["unshare", "-rm", "sh", "-c", ON_A_SMALL_DISK, "sh", str(disk), *i2l]
    environment = os.environ | {"PAIRS": str(disk)}
    found = subprocess.run(
        command, capture_output=True, text=True, env=environment, check=False, cwd=folder
    )
    if found.returncode in (1, 77) and LINE not in found.stderr:
        pytest.skip(f"no small disk can be mounted here: {found.stderr.strip()}")
    return found


@pytest.mark.slow
def test_mining_onto_a_full_disk_is_one_line(tmp_path: Path) -> None:
    if shutil.which("unshare") is None:
        pytest.skip("no unshare, with which the test mounts a small disk of its own")
    disk = tmp_path / "disk"
    disk.mkdir()
    config = CorpusConfig(num_styles=24, images_per_style=8, seed=5)
    write_corpus(config, str(tmp_path / "in"), NullProgress())
    mine = ["mine", "--input", str(tmp_path / "in"), "--output", str(disk)]
    least = ["--set", "mining.split.min_test_styles=1"]
    found = on_a_small_disk(disk, [*mine, *least], tmp_path)
    assert found.returncode == 2, found.stderr
    assert found.stderr.splitlines()[-1].startswith(LINE)
    assert found.stderr.count("error:") == 1
    assert "manifest.json" not in found.stdout
    assert ".tmp" not in found.stdout


def test_a_full_disk_leaves_no_half_file(
    pictures: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same without any privilege: the system's answer is made up."""

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(atomic.os, "fsync", full)
        assert run(["pack", str(pictures), "--output", "shards"]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith(LINE)
    assert list(Path("shards").iterdir()) == []
    assert run(["pack", str(pictures), "--output", "shards"]) == 0


def test_parquet_on_a_full_disk_leaves_no_half_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class FullStream:
        """Takes the first bytes only."""

        closed = False

        def __init__(self, stream: Any) -> None:
            self._stream = stream

        def write(self, data: bytes) -> int:
            if self._stream.tell() + len(data) > 1000:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return int(self._stream.write(data))

        def __getattr__(self, name: str) -> Any:
            return getattr(self._stream, name)

    table = pa.table({"column": [os.urandom(1000) for _ in range(9)]})
    with pytest.raises(OSError, match="No space") as caught:  # noqa: SIM117
        with storage.open_write(tmp_path / "x.parquet") as stream:
            pq.write_table(table, FullStream(stream))
    assert failures.report(caught.value, command="i2l mine", debug=False, log_file=None) == 2
    assert list(tmp_path.iterdir()) == []


def fill_up(batch: dict[str, Any]) -> dict[str, Any]:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "features/x.parquet")


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_a_full_disk_of_a_worker_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    import ray.data

    with pytest.raises(Exception) as caught:  # noqa: PT011 - Ray's own wrappers
        ray.data.range(2).map_batches(fill_up).materialize()
    assert failures.report(caught.value, command="i2l mine", debug=False, log_file=None) == 2
    errors = [x for x in capsys.readouterr().err.splitlines() if x.startswith("error: ")]
    assert len(errors) == 1
    assert errors[0].startswith(LINE)
    assert "features/x.parquet" in errors[0]
