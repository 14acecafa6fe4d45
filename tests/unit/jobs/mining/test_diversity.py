"""Diversity: known values at both ends of each measure."""

import numpy as np
import pytest

from jobs.mining.diversity import (
    VENDI_IMAGES,
    gini,
    pair_cosines,
    same_style_distance,
    style_vendi,
    vendi_score,
)


def test_gini_of_even_and_of_single_use() -> None:
    assert gini([3, 3, 3, 3]) == pytest.approx(0)
    assert gini([0, 0, 0, 8]) == pytest.approx(0.75)
    assert gini([]) == gini([0, 0]) == 0


def test_vendi_counts_unlike_images() -> None:
    assert vendi_score(np.eye(8)) == pytest.approx(8)
    assert vendi_score(np.ones((8, 1))) == pytest.approx(1)
    assert vendi_score(np.eye(8)[[0, 0, 0, 0, 1, 1, 1, 1]]) == pytest.approx(2)


def test_vendi_inside_styles_is_below_that_of_random_images() -> None:
    content = np.eye(16)[np.repeat(np.arange(16), 10)]
    members = [np.arange(10 * n, 10 * n + 10) for n in range(16)]
    found = style_vendi(content, [*members, np.arange(3)], seed=0)
    assert (found.num_images, found.num_styles) == (VENDI_IMAGES, 16)
    assert found.mean == pytest.approx(1)
    assert found.random > 4


def test_no_style_is_large_enough() -> None:
    assert style_vendi(np.eye(4), [np.arange(4)], seed=0).num_styles == 0
    assert style_vendi(np.eye(4), [], seed=0).mean == 0


def test_distance_inside_styles() -> None:
    content = np.eye(2)[[0, 0, 1, 1]]
    assert same_style_distance(content, [np.array([0, 1]), np.array([2, 3])], 0) == pytest.approx(0)
    assert same_style_distance(content, [np.array([0, 2])], 0) == pytest.approx(1)
    assert same_style_distance(content, [], 0) == 0


def test_cosines_of_pairs() -> None:
    content = np.random.default_rng(0).normal(size=(9000, 4)).astype(np.float16)
    first, second = np.arange(8999), np.arange(1, 9000)
    expected = (content[first].astype(float) * content[second].astype(float)).sum(axis=1)
    assert pair_cosines(content, first, second) == pytest.approx(expected)
