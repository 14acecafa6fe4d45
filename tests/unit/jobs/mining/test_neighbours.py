"""Neighbours: exact in a partition, nearly exact over partitions."""

import numpy as np
from numpy.typing import NDArray

from jobs.mining.neighbours import (
    Neighbours,
    _merge,
    drop_self,
    local_scale,
    nearest_in,
    partition,
)


def clustered(count: int, dim: int = 24, seed: int = 0) -> NDArray[np.float16]:
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(count // 20, dim))
    rows = centres[rng.integers(len(centres), size=count)] + 0.3 * rng.normal(size=(count, dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)


def brute_force(vectors: NDArray[np.float16], k: int) -> NDArray[np.int64]:
    similarity = vectors.astype(np.float32) @ vectors.astype(np.float32).T
    np.fill_diagonal(similarity, -2)
    return np.argsort(-similarity, axis=1)[:, :k]


def test_one_partition_is_exact() -> None:
    vectors = clustered(300)
    index, similarity = nearest_in(vectors, np.arange(300), 10)
    expected = brute_force(vectors, 10)
    assert np.mean([len(set(a) & set(b)) / 10 for a, b in zip(index, expected, strict=True)]) > 0.99
    assert (np.diff(similarity, axis=1) <= 1e-6).all()
    assert not (index == np.arange(300)[:, None]).any()


def test_overlapping_partitions_find_neighbours_across_borders() -> None:
    vectors = clustered(3000)
    groups = partition(vectors, 500, seed=0)
    assert len(groups) > 5
    assert sum(len(group) for group in groups) == 2 * 3000
    index = np.full((3000, 16), -1)
    similarity = np.full((3000, 16), -1, dtype=np.float32)
    for group in groups:
        found, scores = nearest_in(vectors, group, 16)
        _merge(index, similarity, group, found, scores)
    expected = brute_force(vectors, 16)
    recall = np.mean([len(set(a) & set(b)) / 16 for a, b in zip(index, expected, strict=True)])
    assert recall > 0.95


def test_few_images_are_one_partition() -> None:
    assert [len(group) for group in partition(clustered(900), 500, seed=0)] == [900]


def test_own_row_goes_even_among_equal_vectors() -> None:
    index, similarity = drop_self(
        np.array([[0, 1, 2], [0, 2, 1], [1, 0, 3]]),
        np.ones((3, 3), dtype=np.float32),
        np.array([0, 1, 2]),
    )
    assert index.tolist() == [[1, 2], [0, 2], [1, 0]]
    assert similarity.shape == (3, 2)


def test_restriction_renumbers() -> None:
    neighbours = Neighbours(
        np.array([[1, 2], [0, 2], [1, 0]]),
        np.array([[0.9, 0.8], [0.9, 0.7], [0.7, 0.8]], np.float32),
    )
    rest = neighbours.within(np.array([True, False, True]))
    assert rest.index.tolist() == [[1, -1], [0, -1]]
    assert np.allclose(rest.similarity, [[0.8, -1], [0.8, -1]])
    assert np.allclose(local_scale(rest, 2), [0.8, 0.8])
