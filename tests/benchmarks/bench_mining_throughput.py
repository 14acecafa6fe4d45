"""Reading, decoding, judging and describing pictures: Ray's pipeline against a plain loop.

The baseline runs the same functions in two processes that share a list of shards and write the
same feature files. Both sides start their processes anew in each round, rounds alternate, and the
best of each counts; only Ray's cluster is there before. Prints images a second, the ratio and the
peak memory of both; asserts equal features and a ratio of at least 0.8.

    BENCH_MINING_IMAGES=16000 pytest tests/benchmarks/bench_mining_throughput.py -s
"""

import contextlib
import io
import multiprocessing
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from PIL import Image

from jobs.mining.config import MiningConfig
from jobs.mining.feature_plan import FeaturePlan, plan_features
from jobs.mining.feature_schema import SCHEMA
from jobs.mining.features import compute_features, feature_uri
from jobs.mining.ingest import END, IngestStage
from jobs.mining.samples import InputShard
from jobs.progress import NullProgress
from jobs.provenance import file_hash
from jobs.shards import ShardWriter

IMAGES = int(os.environ.get("BENCH_MINING_IMAGES", "4000"))
ROUNDS = int(os.environ.get("BENCH_MINING_ROUNDS", "3"))
SHARDS, PROCESSES = 16, 2
MIN_RATIO = 0.8


def _shards(folder: Path) -> list[InputShard]:
    """JPEGs of 512 × 384: smooth fields with grain, about as large as photographs of that size."""
    rng = np.random.default_rng(0)
    pictures = []
    for _ in range(32):
        field = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
        pixels = np.asarray(field.resize((512, 384), Image.Resampling.BICUBIC), dtype=np.int16)
        grain = rng.normal(0, 12, pixels.shape).astype(np.int16)
        buffer = io.BytesIO()
        Image.fromarray(np.clip(pixels + grain, 0, 255).astype(np.uint8)).save(buffer, "JPEG")
        pictures.append(buffer.getvalue())
    shards = []
    for number in range(SHARDS):
        with ShardWriter(str(folder), f"s{number:02d}", 1 << 40) as writer:
            for i in range(IMAGES // SHARDS):
                picture = pictures[(number + i) % len(pictures)]
                writer.write(f"{i:06d}", {"jpg": picture, "txt": f"a thing {i}".encode()})
        uri = writer.shards[0].uri
        shards.append(InputShard(uri, Path(uri).name, file_hash(uri), Path(uri).stat().st_size))
    return shards


def _with_ray(plan: FeaturePlan, shards: list[InputShard], output: Path) -> None:
    workers = MiningConfig(workers={"num_ingest": PROCESSES}).workers
    compute_features(plan, workers, shards, str(output), NullProgress())


def _plain(plan: FeaturePlan, shards: list[InputShard], output: Path) -> None:
    output.mkdir()
    (output / "features").mkdir()
    context = multiprocessing.get_context("spawn")
    with context.Pool(PROCESSES, _start, (plan,)) as pool:
        jobs = [(shard.uri, feature_uri(plan, shard, str(output))) for shard in shards]
        pool.starmap(_describe, jobs, chunksize=1)


_stage: IngestStage


def _start(plan: FeaturePlan) -> None:
    global _stage
    _stage = IngestStage(plan)


def _describe(uri: str, target: str) -> None:
    batch = {"shard": [0], "uri": [uri], "part": [0], "num_parts": [1]}
    table = pa.concat_tables(_stage(batch)).select(SCHEMA.names)
    table = table.filter(pc.not_equal(table["reason"], END))
    pq.write_table(table, target, compression="zstd")


@contextlib.contextmanager
def _peak_memory(peaks: list[float]) -> Iterator[None]:
    """Append the largest sum, in MiB, of what this process and its descendants hold alone."""
    stop, peak = threading.Event(), [0.0]

    def sample() -> None:
        while not stop.wait(0.5):
            total = 0
            for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
                with contextlib.suppress(psutil.Error):
                    total += process.memory_full_info().uss
            peak[0] = max(peak[0], total / 2**20)

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        peaks.append(peak[0])


@pytest.mark.timeout(3600)
def test_throughput(tmp_path: Path, ray_cluster: None) -> None:
    shards = _shards(tmp_path)
    num_images = SHARDS * (IMAGES // SHARDS)
    plan = plan_features(MiningConfig())
    sides = {"plain": _plain, "ray": _with_ray}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    peaks: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(ROUNDS):
        for name, run in sides.items():
            with _peak_memory(peaks[name]):
                started = time.perf_counter()
                run(plan, shards, tmp_path / f"{name}-{number}")
                seconds[name].append(time.perf_counter() - started)
    for shard in shards:
        plain, ray = (
            pq.read_table(feature_uri(plan, shard, str(tmp_path / f"{name}-0")), schema=SCHEMA)
            for name in sides
        )
        assert plain.equals(ray)
    rates = {name: num_images / min(seconds[name]) for name in sides}
    ratio = rates["ray"] / rates["plain"]
    for name in sides:
        print(f"\n{name}: {rates[name]:.0f} images/s, peak {max(peaks[name]):.0f} MiB", end="")
    print(f"\nratio: {ratio:.2f} over {num_images} images, best of {ROUNDS}")
    assert ratio >= MIN_RATIO
