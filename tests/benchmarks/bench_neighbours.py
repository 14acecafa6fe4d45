"""Partitioned neighbour search: time, peak memory, recall and how they grow with the corpus.

Each size runs in a process and a Ray of its own, with the default settings of the mining job. The
vectors are a mixture: 50 images a style around the style's centre, 40 styles a family around the
family's. Recall is measured against exact search for 2,000 sampled images, memory as the sum of
the proportional set sizes of driver, raylet and workers, which counts shared pages and pages of
mapped files once. The baseline, up to 100,000 vectors, is faiss' exact flat search of everything
on all cores.

    I2L_BENCH_SIZES=30000,100000 pytest tests/benchmarks/bench_neighbours.py -s

Fails if recall@64 is below 0.95, a peak above 8 GiB or the exponent of time over size above 1.25.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from jobs.cluster import ensure_ray
from jobs.mining.config import MiningConfig
from jobs.mining.neighbours import search_neighbours
from jobs.progress import NullProgress
from tests.process_memory import peak_memory
from tests.style_vectors import style_vectors

SIZES = os.environ.get("I2L_BENCH_SIZES", "30000,100000,300000,1000000")
MAX_BASELINE = 100_000
DIM, K, QUERIES, CHUNK = 768, 64, 2000, 16_384
MIN_RECALL, MAX_GIB, MAX_EXPONENT = 0.95, 8.0, 1.25
ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(0)
def test_neighbours(tmp_path: Path) -> None:
    results = [_in_process(int(size), tmp_path) for size in SIZES.split(",")]
    print("\n   vectors   seconds  vectors/s  peak GiB  recall@64  exact s  exact / ours")
    for r in results:
        baseline = f"{r['exact']:8.1f} {r['exact'] / r['seconds']:13.2f}" if r["exact"] else ""
        print(
            f"{r['size']:10.0f} {r['seconds']:9.1f} {r['size'] / r['seconds']:10.0f} "
            f"{r['gib']:9.2f} {r['recall']:10.4f} {baseline}"
        )
    if len(results) > 1:
        logs = np.log([[r["size"], r["seconds"]] for r in results])
        exponent = float(np.polyfit(logs[:, 0], logs[:, 1], 1)[0])
        print(f"seconds grow with the {exponent:.2f}th power of the number of vectors")
        assert exponent <= MAX_EXPONENT
    assert min(r["recall"] for r in results) >= MIN_RECALL
    assert max(r["gib"] for r in results) <= MAX_GIB


def _in_process(size: int, tmp_path: Path) -> dict[str, float]:
    folder = tmp_path / str(size)
    folder.mkdir()
    command = [sys.executable, "-m", "tests.benchmarks.bench_neighbours", str(size), str(folder)]
    subprocess.run(command, check=True, cwd=ROOT)
    result: dict[str, float] = json.loads((folder / "result.json").read_text())
    for file in folder.glob("*.bin"):
        file.unlink()
    return result


def _measure(size: int, folder: Path) -> dict[str, float]:
    vectors = np.memmap(folder / "vectors.bin", np.float16, mode="w+", shape=(size, DIM))
    for start in range(0, size, 50_000):
        rows = slice(start, start + 50_000)
        vectors[rows] = style_vectors(size, DIM, rows=rows)
    ensure_ray()
    config = MiningConfig()
    with peak_memory() as peak:
        started = time.perf_counter()
        cache = str(folder / "cache")
        found = search_neighbours(vectors, config, folder, cache, NullProgress())
        seconds = time.perf_counter() - started
    recall = _recall(vectors, found.index)
    exact = _exact_seconds(vectors, config.search.num_neighbours) if size <= MAX_BASELINE else 0.0
    return {
        "size": size,
        "seconds": seconds,
        "gib": peak[0] / 2**30,
        "recall": recall,
        "exact": exact,
    }


def _recall(vectors: NDArray[np.float16], index: NDArray[np.int32]) -> float:
    """Share of the exact K nearest of some images that their lists hold in the first K places."""
    queries = np.random.default_rng(1).permutation(len(vectors))[:QUERIES]
    rows = vectors[queries].astype(np.float32)
    best, at = np.empty((len(rows), 0), np.float32), np.empty((len(rows), 0), np.int64)
    for start in range(0, len(vectors), CHUNK):
        scores = rows @ vectors[start : start + CHUNK].astype(np.float32).T
        numbers = np.broadcast_to(np.arange(start, start + scores.shape[1]), scores.shape)
        scores[numbers == queries[:, None]] = -2
        best, at = np.hstack([best, scores]), np.hstack([at, numbers])
        order = np.argpartition(-best, K, axis=1)[:, :K]
        best, at = np.take_along_axis(best, order, 1), np.take_along_axis(at, order, 1)
    return float(
        np.mean([np.isin(a, index[q, :K]).mean() for q, a in zip(queries, at, strict=True)])
    )


def _exact_seconds(vectors: NDArray[np.float16], num_neighbours: int) -> float:
    import faiss

    faiss.omp_set_num_threads(os.cpu_count())
    started = time.perf_counter()
    flat = faiss.IndexFlatIP(DIM)
    flat.add(vectors.astype(np.float32))
    for start in range(0, len(vectors), CHUNK):
        flat.search(vectors[start : start + CHUNK].astype(np.float32), num_neighbours + 1)
    return time.perf_counter() - started


if __name__ == "__main__":
    result = _measure(int(sys.argv[1]), Path(sys.argv[2]))
    (Path(sys.argv[2]) / "result.json").write_text(json.dumps(result))
