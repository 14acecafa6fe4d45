"""From neighbour lists to styles: time and peak memory of the cut and the components.

A synthetic graph: styles of up to 200 images and single images, neighbour lists of 64 with some
that cross styles, read from memory-mapped files as in the job. Asserts 8 GiB.

    BENCH_CUT_IMAGES=1000000 pytest tests/benchmarks/bench_cut.py -s --timeout=0
"""

import os
import resource
import time
from pathlib import Path

import numpy as np

from jobs.mining.components import find_styles
from jobs.mining.config import CutConfig
from jobs.mining.cut import candidate_edges, choose_cut
from jobs.mining.neighbours import Neighbours

IMAGES = int(os.environ.get("BENCH_CUT_IMAGES", "300000"))
NEIGHBOURS, ROWS = 64, 4096
MEAN_SIZE, LARGEST = 40, 200


def _neighbours(folder: Path) -> Neighbours:
    """Each image knows those beside it in its style, and others at fixed distances."""
    rng = np.random.default_rng(0)
    sizes = np.minimum(rng.geometric(1 / MEAN_SIZE, size=IMAGES // 20), LARGEST)
    sizes = sizes[np.cumsum(sizes) <= IMAGES * 0.8]
    style = np.repeat(np.arange(len(sizes)), sizes)
    style = np.concatenate([style, np.arange(len(sizes), len(sizes) + IMAGES - len(style))])
    start = np.concatenate([[0], np.cumsum(np.bincount(style))])
    shape, steps = (IMAGES, NEIGHBOURS), np.arange(1, NEIGHBOURS + 1)
    aside = np.where(steps % 2, (steps + 1) // 2, -(steps // 2))
    index = np.lib.format.open_memmap(folder / "index.npy", "w+", np.int32, shape)
    similarity = np.lib.format.open_memmap(folder / "similarity.npy", "w+", np.float32, shape)
    for low in range(0, IMAGES, ROWS):
        rows = np.arange(low, min(low + ROWS, IMAGES))[:, None]
        first = start[style[rows]]
        size = start[style[rows] + 1] - first
        inside = steps < size
        members = first + (rows - first + aside) % size
        found = np.where(inside, members, (rows + 137 * aside) % IMAGES)
        index[rows[:, 0]] = found
        wave = 0.1 * np.cos(0.37 * (rows + found))  # the same seen from both ends
        similarity[rows[:, 0]] = np.where(inside, 0.8, 0.5) + wave
    del index, similarity
    return Neighbours(
        np.load(folder / "index.npy", mmap_mode="r"),
        np.load(folder / "similarity.npy", mmap_mode="r"),
    )


def test_cut_and_components(tmp_path: Path) -> None:
    neighbours = _neighbours(tmp_path)
    scale = np.random.default_rng(1).uniform(0.4, 0.7, IMAGES).astype(np.float32)
    config, seconds = CutConfig(min_precision=0), []
    start = time.perf_counter()
    edges = candidate_edges(neighbours, scale, 0.3)
    seconds.append(time.perf_counter() - start)
    start = time.perf_counter()
    cut = choose_cut(edges, IMAGES, config, seed=0)
    seconds.append(time.perf_counter() - start)
    start = time.perf_counter()
    styles = find_styles(edges, cut, IMAGES, NEIGHBOURS, config)
    seconds.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"\n{IMAGES:,} images, {len(edges):,} candidate links, {len(styles.members):,} styles")
    for name, value in zip(("candidates", "cut", "styles"), seconds, strict=True):
        print(f"{name:12s} {value:8.1f} s")
    print(f"{'peak memory':12s} {peak:8.2f} GiB")
    assert peak <= 8
