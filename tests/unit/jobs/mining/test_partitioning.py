"""Groups: overlapping, bounded, the same on every call."""

import numpy as np
import pytest
from numpy.typing import NDArray

from jobs.mining.partitioning import partition
from tests.style_vectors import style_vectors, unit


def skewed(count: int, copies: float) -> NDArray[np.float16]:
    """80 % near one point, of which a share are copies of that point."""
    rng = np.random.default_rng(0)
    vectors = style_vectors(count, 24).astype(np.float32)
    near = rng.permutation(count)[: count * 4 // 5]
    vectors[near] = unit(vectors[:1] + 0.02 * rng.normal(size=(len(near), 24)))
    vectors[near[: int(copies * len(near))]] = vectors[0]
    return vectors.astype(np.float16)


def test_few_vectors_are_one_group() -> None:
    assert [len(group) for group in partition(style_vectors(1000, 24), 500, seed=0)] == [1000]


def test_each_vector_joins_two_groups() -> None:
    groups = partition(style_vectors(3000, 24), 500, seed=0)
    assert len(groups) > 5
    assert (np.bincount(np.concatenate(groups)) == 2).all()
    assert all(group.dtype == np.int32 and (np.diff(group) > 0).all() for group in groups)


@pytest.mark.parametrize("copies", [0.0, 0.5, 1.0])
def test_groups_of_skewed_vectors_are_bounded(copies: float) -> None:
    vectors = skewed(8000, copies)
    groups = partition(vectors, 500, seed=0)
    assert max(len(group) for group in groups) <= 1000
    assert len(np.unique(np.concatenate(groups))) == 8000
    again = partition(vectors, 500, seed=0)
    assert all(np.array_equal(a, b) for a, b in zip(groups, again, strict=True))


@pytest.mark.parametrize("size", [1, 2, 3])
def test_tiny_groups(size: int) -> None:
    groups = partition(style_vectors(50, 8), size, seed=0)
    assert max((len(group) for group in groups), default=0) <= 2 * size


@pytest.mark.parametrize("count", [0, 1])
def test_no_group_without_a_pair(count: int) -> None:
    assert partition(np.ones((count, 8), np.float16), 500, seed=0) == []
