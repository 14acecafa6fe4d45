"""Mining that is killed anywhere goes on where it was, to the same bytes; new shards extend it."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import cycle
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest

from jobs.corpus.stylegrid import CorpusConfig, write_corpus
from jobs.progress import NullProgress
from jobs.shards import ShardSample, ShardWriter, read_shard
from pipelines.cli.main import run as i2l

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("ray_cluster")]

NUM_SHARDS = 6
SETTINGS = (
    "mining.split.min_test_styles=2",
    "mining.workers.num_ingest=1",
    "mining.search.partition_size=60",
)
TIMEOUT_S = 240


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every style in every shard, so that any of them grow a set."""
    corpus, folder = (tmp_path_factory.mktemp(name) for name in ("corpus", "input"))
    grid = CorpusConfig(num_styles=24, images_per_style=18, seed=31)
    write_corpus(grid, str(corpus), NullProgress())
    parts: list[list[ShardSample]] = [[] for _ in range(NUM_SHARDS)]
    samples = (sample for path in sorted(corpus.glob("*.tar")) for sample in read_shard(str(path)))
    for sample, part in zip(samples, cycle(parts), strict=False):
        part.append(sample)
    for number, part in enumerate(parts):
        with ShardWriter(str(folder), f"part{number}", 64 << 20) as writer:
            for sample in part:
                writer.write(sample.key, sample.members)
    return folder


@pytest.fixture(scope="module")
def uninterrupted(
    shards: Path, ray_cluster: None, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, bytes]:
    output = tmp_path_factory.mktemp("whole") / "pairs"
    finish(shards, output)
    return files_below(output)


def arguments(source: Path, output: Path) -> list[str]:
    settings = [part for setting in SETTINGS for part in ("--set", setting)]
    return ["mine", "--input", str(source), "--output", str(output), *settings]


@contextmanager
def mining(source: Path, output: Path) -> Iterator[subprocess.Popen[str]]:
    """A run with a Ray of its own; all of its processes are gone afterwards."""
    command = [sys.executable, "-m", "pipelines.cli.main", *arguments(source, output)]
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    output.parent.mkdir(parents=True, exist_ok=True)
    run = subprocess.Popen(
        command,
        cwd=output.parent,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    family = {run.pid: psutil.Process(run.pid)}
    try:
        yield run
    finally:
        with suppress(psutil.Error):
            family |= {p.pid: p for p in psutil.Process(run.pid).children(recursive=True)}
        for process in (*family.values(), *session_of(run.pid)):
            with suppress(psutil.Error):
                process.kill()
        run.wait(TIMEOUT_S)


def session_of(leader: int) -> list[psutil.Process]:
    """Processes that a killed run left behind."""
    found = []
    for process in psutil.process_iter():
        with suppress(OSError, psutil.Error):
            if os.getsid(process.pid) == leader:
                found.append(process)
    return found


def finish(source: Path, output: Path) -> None:
    """Run to the end, with the Ray of all tests: a start of another one takes long."""
    assert i2l(arguments(source, output)) == 0


def wait_for(happened: Callable[[], bool], run: subprocess.Popen[str]) -> None:
    end = time.monotonic() + TIMEOUT_S
    while not happened():
        assert run.poll() is None, run.stderr.read() if run.stderr else ""
        assert time.monotonic() < end
        time.sleep(0.01)


def files_below(folder: Path) -> dict[str, bytes]:
    """All files but the one that says where and when."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "run.json"
    }


def count(pattern: str) -> Callable[[Path], int]:
    return lambda output: len(list(output.glob(pattern)))


MOMENTS = {
    "while shards are embedded": count("features/*.parquet"),
    "while neighbours are searched": count("work/neighbours/*"),
    "while images are compressed": count("work/images/*.parquet"),
    "while pairs are written": count("shards/train/*"),
    "before the manifest": count("ledger.parquet"),
}


def test_a_driver_killed_again_and_again_ends_with_the_same_bytes(
    shards: Path, uninterrupted: dict[str, bytes], tmp_path: Path
) -> None:
    output = tmp_path / "pairs"
    made: dict[str, int] = {}
    for moment, progress in MOMENTS.items():
        with mining(shards, output) as run:
            wait_for(lambda progress=progress: progress(output) > 0, run)  # type: ignore[misc]
            run.send_signal(signal.SIGKILL)
            run.wait(TIMEOUT_S)
        assert not (output / "manifest.json").exists(), moment
        made |= {path.name: path.stat().st_mtime_ns for path in output.glob("features/*")}
    finish(shards, output)
    found = files_below(output)
    assert sorted(found) == sorted(uninterrupted)
    assert [name for name in found if found[name] != uninterrupted[name]] == []
    for path in output.glob("features/*"):
        assert path.stat().st_mtime_ns == made.get(path.name, path.stat().st_mtime_ns)


def test_a_killed_worker_costs_the_run_nothing(
    shards: Path, uninterrupted: dict[str, bytes], tmp_path: Path
) -> None:
    output = tmp_path / "pairs"
    with mining(shards, output) as run:
        wait_for(lambda: count("features/*.parquet")(output) > 0, run)
        workers = named(run.pid, "IngestStage")
        assert workers
        for worker in workers:
            worker.kill()
        _, errors = run.communicate(timeout=TIMEOUT_S)
    assert run.returncode == 0, errors
    assert files_below(output) == uninterrupted


def test_without_a_raylet_one_line_says_so_and_the_next_run_goes_on(
    shards: Path, uninterrupted: dict[str, bytes], tmp_path: Path
) -> None:
    output = tmp_path / "pairs"
    with mining(shards, output) as run:
        wait_for(lambda: count("features/*.parquet")(output) > 0, run)
        (raylet,) = (p for p in family_of(run.pid) if p.name() == "raylet")
        raylet.kill()
        _, errors = run.communicate(timeout=TIMEOUT_S)
    assert run.returncode == 1
    assert len(re.findall(r"^error: ", errors, re.MULTILINE)) == 1
    assert "Traceback" not in errors
    assert not (output / "manifest.json").exists()
    finish(shards, output)
    assert files_below(output) == uninterrupted


def family_of(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


def named(pid: int, name: str) -> list[psutil.Process]:
    found = []
    for process in family_of(pid):
        with suppress(psutil.Error):
            if name in " ".join(process.cmdline()):
                found.append(process)
    return found


def test_new_shards_extend_a_set_and_a_finished_run_does_nothing(
    shards: Path, tmp_path: Path
) -> None:
    source, output = tmp_path / "in", tmp_path / "pairs"
    source.mkdir()
    paths = sorted(shards.glob("*.tar"))
    for path in paths[:3]:
        shutil.copy(path, source)
    finish(source, output)
    before, features = splits_of(output), set(output.glob("features/*"))
    written = {path: path.stat().st_mtime_ns for path in output.rglob("*") if path.is_file()}
    finish(source, output)
    assert {p: p.stat().st_mtime_ns for p in output.rglob("*") if p.is_file()} == written
    for path in paths[3:]:
        shutil.copy(path, source)
    finish(source, output)
    after = splits_of(output)
    moved = {name for name in before.keys() & after.keys() if before[name] != after[name]}
    assert moved == set()
    assert len(after) > 1.5 * len(before)
    assert all(path.stat().st_mtime_ns == written[path] for path in features)
    assert len(list(output.glob("features/*"))) == NUM_SHARDS


def splits_of(output: Path) -> dict[tuple[str, str], str]:
    """Shard and key of every image in a pair → its split."""
    found: dict[tuple[str, str], str] = {}
    for row in pq.read_table(output / "index.parquet").to_pylist():
        places = zip(row["ref_shards"], row["ref_keys"], strict=True)
        for place in (*places, (row["target_shard"], row["target_key"])):
            assert found.setdefault(place, row["split"]) == row["split"]
    return found
