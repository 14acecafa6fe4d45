"""Mining from end to end at growing numbers of small images: time, and memory that must not grow.

Each size runs in a process and a Ray of its own, with the usual settings. The pictures are made
for speed, not for a test of quality: a blob in one grating on another, 25 a style. Memory is the
sum of the proportional set sizes of driver, raylet and workers.

    I2L_BENCH_SIZES=10000,30000,100000 pytest tests/benchmarks/bench_mining_scale.py -s

Fails if a peak is above 8 GiB, or that of the largest size above 1.5 times that of the smallest.
"""

import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from jobs.cluster import ensure_ray
from jobs.corpus.contents import CONTENTS
from jobs.mining.config import MiningConfig
from jobs.mining.run import run_mining
from jobs.progress import LogProgress
from jobs.shards import ShardWriter
from tests.process_memory import peak_memory

SIZES = os.environ.get("I2L_BENCH_SIZES", "10000,30000,100000")
SIDE, IMAGES_A_STYLE, SHARD_MIB = 64, 25, 16
MAX_GIB, MAX_GROWTH = 8.0, 1.5
ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(0)
def test_mining_scale(tmp_path: Path) -> None:
    results = [_in_process(int(size), tmp_path) for size in SIZES.split(",")]
    print("\n    images   seconds  images/s  peak GiB    styles     pairs")
    for r in results:
        print(
            f"{r['size']:10.0f} {r['seconds']:9.1f} {r['size'] / r['seconds']:9.0f} "
            f"{r['gib']:9.2f} {r['styles']:9.0f} {r['pairs']:9.0f}"
        )
    peaks = [r["gib"] for r in results]
    print(f"the largest size takes {peaks[-1] / peaks[0]:.2f} times the memory of the smallest")
    assert max(peaks) <= MAX_GIB
    assert peaks[-1] <= MAX_GROWTH * peaks[0]


def _in_process(size: int, tmp_path: Path) -> dict[str, float]:
    folder = tmp_path / str(size)
    folder.mkdir()
    _write_shards(size, folder / "in")
    command = [sys.executable, "-m", "tests.benchmarks.bench_mining_scale", str(folder)]
    subprocess.run(command, check=True, cwd=ROOT)
    result: dict[str, float] = json.loads((folder / "result.json").read_text())
    return {"size": size, **result}


def _write_shards(size: int, folder: Path) -> None:
    order = np.random.default_rng(0).permutation(size).tolist()
    with ShardWriter(str(folder), "small", SHARD_MIB << 20) as writer:
        for number in order:
            buffer = io.BytesIO()
            Image.fromarray(_picture(number)).save(buffer, "PNG", compress_level=1)
            noun = list(CONTENTS)[number % len(CONTENTS)]
            text = f"a {noun}".encode()
            writer.write(f"{number:08d}", {"png": buffer.getvalue(), "txt": text})


def _picture(number: int) -> NDArray[np.uint8]:
    """A blob of the image on a ground, both gratings of the style."""
    style = np.random.default_rng([number // IMAGES_A_STYLE, 1])
    own = np.random.default_rng([number, 2])
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    layers = []
    for _ in range(2):
        angle, frequency, contrast = style.uniform(0, np.pi), style.uniform(3, 24), style.random()
        wave = np.sin(
            2 * np.pi * frequency * (x * np.cos(angle) + y * np.sin(angle)) + own.random()
        )
        layers.append(style.random(3) * (1 + contrast * (wave[..., None] - 1) / 2))
    turn = np.arctan2(y - own.uniform(0.35, 0.65), x - own.uniform(0.35, 0.65))
    radius = np.hypot(y - 0.5, x - 0.5)
    waves = sum(own.normal() * np.cos(k * turn + own.uniform(0, 6)) / k for k in range(1, 6))
    inside = (radius < 0.28 + 0.06 * waves)[..., None]
    grain = own.normal(0, 0.02 * style.random(), (SIDE, SIDE, 1))
    values = np.where(inside, *layers) + grain
    return (255 * np.clip(values, 0, 1)).astype(np.uint8)


def _measure(folder: Path) -> dict[str, float]:
    ensure_ray()
    with peak_memory() as peak:
        started = time.perf_counter()
        source, output = str(folder / "in"), str(folder / "pairs")
        found = run_mining(MiningConfig(), source, output, LogProgress())
        seconds = time.perf_counter() - started
    counts = {name: float(found.counts[name]) for name in ("styles", "pairs")}
    return {"seconds": seconds, "gib": peak[0] / 2**30, **counts}


if __name__ == "__main__":
    (Path(sys.argv[1]) / "result.json").write_text(json.dumps(_measure(Path(sys.argv[1]))))
