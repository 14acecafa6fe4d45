"""The whole workflow at its smallest: killed during training, continued, repeated.

The gate's bounds are opened in tests/assets/micro.yaml, since a training of seconds makes no
predictor worth promoting; here it counts that every step runs, resumes and hands over.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from i2l_model.assets import available_assets
from i2l_model.backbones.tiny import build_tiny_zimage
from jobs.registry.tracking import TrackingConfig
from jobs.registry.versions import CHAMPION, ModelRegistry
from jobs.training.checkpoints import whole_files
from pipelines.cli.main import run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

MICRO = Path(__file__).parents[1] / "assets" / "micro.yaml"
LAUNCH = "import sys; from pipelines.cli.main import main; main()"


@dataclass(frozen=True)
class Finished:
    """A workspace whose run was killed once and then continued to the end.

    Attributes:
        root: The workspace.
        arguments: Behind ``i2l``.
        second: What a run beside the first one said, and its exit code.
        survivors: Processes of the killed run that outlived it.
        pairs_marker: Marker of mining, as it was when the run was killed.
        output: What the continued run printed on stdout.
        progress: What it printed on stderr.
    """

    root: Path
    arguments: list[str]
    second: tuple[int, str]
    survivors: list[str]
    pairs_marker: str
    output: str
    progress: str


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> str:
    if "tiny-zimage" in available_assets():
        return "tiny-zimage"
    folder = tmp_path_factory.mktemp("backbone") / "tiny-zimage"
    build_tiny_zimage(0, folder)
    return str(folder)


@pytest.fixture(scope="module")
def finished(backbone: str, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    root = tmp_path_factory.mktemp("run") / "workspace"
    arguments = [
        "run", "--recipe", str(MICRO), "--workspace", str(root),
        "--set", f"training.backbone={backbone}", "--set", f"evaluation.backbone={backbone}",
    ]  # fmt: skip
    with _launched(arguments) as process:
        _wait_for(lambda: _is_locked(root), process)
        second = _call(arguments)
        _wait_for(lambda: _whole_checkpoints(root), process)
        descendants = psutil.Process(process.pid).children(recursive=True)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    _, alive = psutil.wait_procs(descendants, timeout=30)
    pairs_marker = (root / "state" / "pairs.json").read_text()
    done = _call(arguments)
    assert done.returncode == 0, done.stderr
    return Finished(
        root=root,
        arguments=arguments,
        second=(second.returncode, second.stderr),
        survivors=[" ".join(each.cmdline()) for each in alive if each.is_running()],
        pairs_marker=pairs_marker,
        output=done.stdout,
        progress=done.stderr,
    )


@contextmanager
def _launched(arguments: list[str]) -> Iterator[subprocess.Popen[str]]:
    """A run in a process group of its own, killed at the end of the block."""
    process = subprocess.Popen(
        [sys.executable, "-c", LAUNCH, *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        text=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _call(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", LAUNCH, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=600)


def _wait_for(condition: Callable[[], object], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 600
    while not condition():
        assert process.poll() is None, f"the run ended by itself with {process.returncode}"
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _is_locked(root: Path) -> bool:
    lock = root / "state" / "lock"
    return lock.is_file() and lock.stat().st_size > 0


def _whole_checkpoints(root: Path) -> list[Path]:
    folders = (root / "training" / "checkpoints").glob("*/*/step-*")
    return [folder for folder in folders if whole_files(str(folder)) is not None]


def _registry(root: Path) -> ModelRegistry:
    return ModelRegistry(TrackingConfig().resolve(root / "mlflow"))


def test_a_second_run_in_the_same_workspace_is_refused(finished: Finished) -> None:
    code, said = finished.second
    assert code == 2
    assert re.fullmatch(r"error: --workspace .* is in use by a run \(pid \d+ since .*\n", said)


def test_no_process_outlives_a_killed_run(finished: Finished) -> None:
    assert finished.survivors == []


def test_the_continued_run_does_not_mine_again(finished: Finished) -> None:
    assert (finished.root / "state" / "pairs.json").read_text() == finished.pairs_marker
    for step in ("shards", "pairs"):
        assert re.search(rf"✓ {step} .*done in an earlier run", finished.progress)


def test_the_continued_run_resumes_the_training(finished: Finished) -> None:
    history = json.loads((finished.root / "training" / "training.json").read_text())
    (resumed_at,) = history["resumed_at"]
    assert 0 < resumed_at < history["steps"]
    steps = [entry["step"] for entry in history["history"] if "train/loss" in entry]
    assert steps == sorted(set(steps))
    assert steps[-1] == history["steps"]


def test_the_run_ends_with_a_champion_and_says_where_to_look(finished: Finished) -> None:
    (version,) = _registry(finished.root).list_versions()
    assert CHAMPION in version.aliases
    assert str(finished.root / "index.html") in finished.output
    assert f"Champion: {version.uri}" in finished.output
    assert f"--predictor models:/{version.name}@champion" in finished.output


def test_the_report_rests_on_the_pairs_of_the_training(finished: Finished) -> None:
    report = json.loads((finished.root / "report" / "report.json").read_text())
    assert report["held_out"]["pairs_of_training"]


def test_the_page_links_to_what_is_there(finished: Finished) -> None:
    page = (finished.root / "index.html").read_text()
    links = re.findall(r'(?:href|src)="([^"]+)"', page)
    assert "report/report/index.html" in links
    assert "pairs/report/index.html" in links
    for link in links:
        assert (finished.root / link).exists(), link


def test_dagster_keeps_the_history_in_the_workspace(
    finished: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    import dagster as dg

    monkeypatch.setenv("DAGSTER_HOME", str(finished.root / "dagster"))
    with dg.DagsterInstance.get() as instance:
        event = instance.get_latest_materialization_event(dg.AssetKey("champion"))
        assert event is not None
        assert event.asset_materialization is not None
        assert event.asset_materialization.metadata["model"].value.startswith("i2l-")
        assert not instance.telemetry_enabled


def test_a_finished_run_does_nothing(
    finished: Finished, capsys: pytest.CaptureFixture[str]
) -> None:
    before = _times(finished.root)
    assert run(finished.arguments) == 0
    assert "Nothing to do" in capsys.readouterr().out
    assert _times(finished.root) == before


def test_the_champion_predicts(finished: Finished, tmp_path: Path, backbone: str) -> None:
    from PIL import Image

    picture = tmp_path / "reference.png"
    Image.new("RGB", (64, 64), (200, 30, 30)).save(picture)
    output = tmp_path / "style.safetensors"
    (version,) = _registry(finished.root).list_versions()
    code = run(
        ["predict", str(picture), "--predictor", f"models:/{version.name}@champion",
         "--workspace", str(finished.root), "--output", str(output)]
    )  # fmt: skip
    assert code == 0
    assert output.is_file()


def test_a_gate_that_refuses_exits_with_3_and_keeps_the_champion(
    finished: Finished, capsys: pytest.CaptureFixture[str]
) -> None:
    code = run(
        ["promote", "--version", "1", "--recipe", str(MICRO), "--workspace", str(finished.root),
         "--set", "gate.min_style_gain=0.5"]
    )  # fmt: skip
    assert code == 3
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith("refused: gate of models:/")
    assert any("of the null's distance gone, should be at least 0.5" in line for line in said[1:])
    assert CHAMPION in _registry(finished.root).list_versions()[0].aliases


def _times(root: Path) -> dict[str, int]:
    """Times of everything but the log, the lock and what SQLite touches when it is opened."""
    skipped = {"logs", "dagster", "mlflow"}
    return {
        str(path.relative_to(root)): path.stat().st_mtime_ns
        for path in root.rglob("*")
        if path.is_file() and path.relative_to(root).parts[0] not in skipped
        if path.name != "lock"
    }
