"""Neighbours: exact in a partition, nearly exact over partitions, the same however they came."""

import contextlib
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from numpy.typing import NDArray

from jobs.mining import neighbours as module
from jobs.mining.config import MiningConfig
from jobs.mining.neighbours import Neighbours, local_scale, search_neighbours
from jobs.mining.partition_search import nearest_in
from jobs.progress import NullProgress
from tests.style_vectors import style_vectors


def search(
    vectors: NDArray[np.float16],
    folder: Path,
    partition_size: int = 500,
    num_neighbours: int = 16,
    num_search: int = 2,
    cache: Path | None = None,
) -> Neighbours:
    config = MiningConfig(
        search={"partition_size": partition_size, "num_neighbours": num_neighbours},
        workers={"num_search": num_search},
    )
    folder.mkdir()
    cache_uri = str(cache or folder / "cache")
    return search_neighbours(vectors, config, folder, cache_uri, NullProgress())


def same(first: Neighbours, second: Neighbours) -> bool:
    return (
        first.index.tobytes() == second.index.tobytes()
        and first.similarity.tobytes() == second.similarity.tobytes()
    )


def test_one_partition_is_exact(ray_cluster: None, tmp_path: Path) -> None:
    vectors = style_vectors(600, 24)
    found = search(vectors, tmp_path / "a")
    assert found.index.dtype == np.int32
    assert same(found, Neighbours(*nearest_in(vectors, 16)))


def test_recall_over_partitions(ray_cluster: None, tmp_path: Path) -> None:
    vectors = style_vectors(20_000, 96)
    found = search(vectors, tmp_path / "a", partition_size=2000, num_neighbours=64)
    queries = np.arange(0, 20_000, 20)
    similarity = vectors[queries].astype(np.float32) @ vectors.astype(np.float32).T
    similarity[np.arange(len(queries)), queries] = -2
    exact = np.argpartition(-similarity, 64, axis=1)[:, :64]
    hits = [np.isin(a, b).mean() for a, b in zip(exact, found.index[queries], strict=True)]
    assert np.mean(hits) >= 0.95
    assert not (found.index[queries] == queries[:, None]).any()
    assert all(len(set(row)) == 64 for row in found.index[queries].tolist())


def test_bytes_do_not_depend_on_workers_or_on_the_cache(ray_cluster: None, tmp_path: Path) -> None:
    vectors = style_vectors(3000, 24)
    cache = tmp_path / "cache"
    one = search(vectors, tmp_path / "a", num_search=1, cache=cache)
    files = sorted(cache.iterdir())
    assert len(files) > 5
    for file in files[::2]:
        file.unlink()
    times = {file: file.stat().st_mtime_ns for file in files[1::2]}
    assert same(one, search(vectors, tmp_path / "b", num_search=1, cache=cache))
    assert sorted(cache.iterdir()) == files
    assert {file: file.stat().st_mtime_ns for file in times} == times
    assert same(one, search(vectors, tmp_path / "c", num_search=3))


def test_a_memmap_gives_the_same(ray_cluster: None, tmp_path: Path) -> None:
    vectors = style_vectors(1500, 24)
    mapped = np.memmap(tmp_path / "v", dtype=np.float16, mode="w+", shape=vectors.shape)
    mapped[:] = vectors
    assert same(search(vectors, tmp_path / "a"), search(mapped, tmp_path / "b"))


@pytest.mark.parametrize("count", [0, 1, 2])
def test_hardly_any_images(ray_cluster: None, tmp_path: Path, count: int) -> None:
    found = search(style_vectors(2, 8)[:count], tmp_path / "a")
    expected = [[1], [0]] if count == 2 else [[]] * count
    assert found.index.tolist() == expected
    assert found.within(np.ones(count, dtype=bool), tmp_path).index.tolist() == expected


def kill_searches(killed: list[int], count: int) -> None:
    """SIGKILL the first ``count`` workers that are seen to search."""
    until = time.monotonic() + 30
    while len(killed) < count and time.monotonic() < until:
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if "ray::search_partition" in process.name() + " ".join(process.cmdline()):
                    process.kill()
                    killed.append(process.pid)
                    break


def test_a_killed_worker_loses_nothing(ray_cluster: None, tmp_path: Path) -> None:
    vectors = style_vectors(6000, 96)
    undisturbed = search(vectors, tmp_path / "a", partition_size=1000)
    killed: list[int] = []
    killer = threading.Thread(target=kill_searches, args=(killed, 2))
    killer.start()
    disturbed = search(vectors, tmp_path / "b", partition_size=1000)
    killer.join()
    assert len(killed) == 2
    assert same(undisturbed, disturbed)


def test_merging_in_any_order_gives_the_same(tmp_path: Path) -> None:
    rows = np.array([0, 2], np.int32)
    parts = [
        (np.array([[1, 3], [1, 3]], np.int32), np.array([[0.5, 0.25], [0, -0.5]], np.float32)),
        (np.array([[4, 1], [0, 3]], np.int32), np.array([[0.5, 0.25], [0, -0.25]], np.float32)),
        (np.array([[3], [4]], np.int32), np.array([[0.5], [-0.125]], np.float32)),
    ]
    for order in ([0, 1, 2], [2, 1, 0], [1, 2, 0]):
        merged = Neighbours.empty(tmp_path, 3, 4)
        for number in order:
            merged.merge(rows, parts[number])
        assert merged.index.tolist() == [[1, 3, 4, -1], [-1] * 4, [0, 1, 4, 3]]
        assert merged.similarity.tolist() == [[0.5, 0.5, 0.5, -1], [-1] * 4, [0, 0, -0.125, -0.25]]


def test_restriction_renumbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CHUNK", 2)
    neighbours = Neighbours.empty(tmp_path, 4, 2)
    neighbours.index[:] = [[1, 2], [0, 2], [1, 0], [3, -1]]
    neighbours.similarity[:] = [[0.9, 0.8], [0.9, 0.7], [0.7, 0.8], [0.5, -1]]
    rest = neighbours.within(np.array([True, False, True, True]), tmp_path)
    assert rest.index.tolist() == [[1, -1], [0, -1], [2, -1]]
    assert np.allclose(rest.similarity, [[0.8, -1], [0.8, -1], [0.5, -1]])
    assert np.allclose(local_scale(rest, 2), [0.8, 0.8, 0.5])
    assert neighbours.index[1].tolist() == [0, 2]  # the old files stay readable
    assert len(neighbours.within(np.zeros(4, dtype=bool), tmp_path).index) == 0
