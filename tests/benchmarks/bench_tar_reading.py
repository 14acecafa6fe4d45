"""Reading a local shard: ours against the ``webdataset`` library, its decoder off.

Both sides open a tar and group its members to samples of bytes; rounds alternate in one process
and the best of each counts. Prints samples a second, the ratio and the memory each side adds, for
three kinds of shard; asserts that the ratio is at least 1.

    BENCH_TAR_SAMPLES=20000 pytest tests/benchmarks/bench_tar_reading.py -s
"""

import json
import os
import random
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jobs.shards import ShardWriter, read_shard

ROUNDS = 7
SAMPLES = int(os.environ.get("BENCH_TAR_SAMPLES", "4000"))
MIB_A_SHARD = 400


def _ours(path: str) -> Iterator[dict[str, bytes]]:
    for sample in read_shard(path):
        yield sample.members


def _webdataset(path: str) -> Iterator[dict[str, bytes]]:
    from webdataset.tariterators import group_by_keys, tar_file_expander

    with Path(path).open("rb") as stream:
        yield from group_by_keys(tar_file_expander([{"url": path, "stream": stream}]))


def _shard(folder: Path, image_bytes: int) -> str:
    rng = random.Random(0)
    image = rng.randbytes(image_bytes)
    num = min(SAMPLES, (MIB_A_SHARD << 20) // (image_bytes + 4096))
    with ShardWriter(str(folder), "bench", 1 << 40) as writer:
        for i in range(num):
            meta = json.dumps({"key": i, "width": 256, "height": 256, "status": "success"})
            members = {"jpg": image, "txt": b"a picture of a thing", "json": meta.encode()}
            writer.write(f"{i:09d}", members)
    return writer.shards[0].uri


def _consume(read: Callable[[str], Iterator[dict[str, bytes]]], path: str) -> tuple[int, int]:
    """Samples and bytes of images; one sample at a time is held."""
    samples = image_bytes = 0
    for members in read(path):
        samples += 1
        image_bytes += len(members["jpg"])
    return samples, image_bytes


def _peak_mib(read: Callable[[str], Iterator[dict[str, bytes]]], path: str) -> float:
    tracemalloc.start()
    _consume(read, path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 2**20


@pytest.mark.parametrize("kib", [4, 64, 1024])
def test_tar_reading_against_webdataset(tmp_path: Path, kib: int) -> None:
    path = _shard(tmp_path, kib << 10)
    sides = {"ours": _ours, "webdataset": _webdataset}
    assert len({_consume(read, path) for read in sides.values()}) == 1
    best = dict.fromkeys(sides, float("inf"))
    for _ in range(ROUNDS):
        for name, read in sides.items():
            start = time.perf_counter()
            num, _bytes = _consume(read, path)
            best[name] = min(best[name], time.perf_counter() - start)
    ratio = best["webdataset"] / best["ours"]
    print(f"\n{num} samples with images of {kib} KiB, best of {ROUNDS} alternating rounds")
    for name, seconds in best.items():
        peak = _peak_mib(sides[name], path)
        print(f"{name:12s} {num / seconds:10.0f} samples/s   peak memory {peak:6.2f} MiB")
    print(f"{'ratio':12s} {ratio:10.2f}")
    assert ratio >= 1.0
