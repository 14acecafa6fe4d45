"""Exact lists in one partition, and the cache of finished ones."""

from pathlib import Path

import numpy as np
import pytest
import ray
from numpy.typing import NDArray

from jobs import storage
from jobs.mining import partition_search
from jobs.mining.partition_search import nearest_in, search_partition
from tests.s3_servers import S3Server
from tests.style_vectors import style_vectors


def brute_force(vectors: NDArray[np.float16], k: int) -> NDArray[np.int64]:
    similarity = vectors.astype(np.float32) @ vectors.astype(np.float32).T
    np.fill_diagonal(similarity, -2)
    return np.argsort(-similarity, axis=1, kind="stable")[:, :k]


def test_lists_are_exact() -> None:
    vectors = style_vectors(1200, 24)
    index, similarity = nearest_in(vectors, 10)
    assert np.mean(index == brute_force(vectors, 10)) > 0.999
    assert (np.diff(similarity, axis=1) <= 0).all()
    assert (similarity > 0).any()


def test_ties_go_to_the_first() -> None:
    vectors = np.eye(2, 16, dtype=np.float16)[[0, 1, 0, 0, 1, 0]]
    index, similarity = nearest_in(vectors, 2)
    assert index.tolist() == [[2, 3], [4, 0], [0, 3], [0, 2], [1, 0], [0, 2]]
    assert similarity.tolist() == [[1, 1], [1, 0], [1, 1], [1, 1], [1, 0], [1, 1]]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_lists_are_as_long_as_there_are_others(count: int) -> None:
    index, similarity = nearest_in(style_vectors(count, 8), 10)
    assert index.shape == similarity.shape == (count, count - 1)


@pytest.mark.parametrize("damage", ["truncated", "flipped", "foreign", "empty"])
def test_a_damaged_file_is_searched_again(ray_cluster: None, tmp_path: Path, damage: str) -> None:
    vectors = style_vectors(300, 24)
    first = ray.get(search_partition.remote(vectors, 10, str(tmp_path)))
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    half = len(whole) // 2
    flipped = bytes([whole[half] ^ 1])
    damaged = {
        "truncated": whole[:half],
        "flipped": whole[:half] + flipped + whole[half + 1 :],
        "foreign": b"<html>" * 100,
        "empty": b"",
    }
    file.write_bytes(damaged[damage])
    again = ray.get(search_partition.remote(vectors, 10, str(tmp_path)))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert file.read_bytes() == whole


def test_files_lie_in_object_storage(s3_server: S3Server) -> None:
    vectors, uri = style_vectors(300, 24), f"{s3_server.new_bucket()}/run/neighbours"
    search = search_partition._function
    first = search(vectors, 10, uri)
    assert len(storage.list_files(uri)) == 1
    again = search(vectors, 10, uri)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))


def test_a_file_is_used_where_the_same_vectors_meet(tmp_path: Path) -> None:
    vectors = style_vectors(30, 24)
    search = search_partition._function
    lists = search(vectors, 5, str(tmp_path))
    (file,) = tmp_path.iterdir()
    changed = (lists[0][::-1].copy(), lists[1])
    partition_search._write(str(file), changed)
    assert np.array_equal(search(vectors, 5, str(tmp_path))[0], changed[0])
    search(vectors, 6, str(tmp_path))
    search(vectors[::-1], 5, str(tmp_path))
    assert len(list(tmp_path.iterdir())) == 3
