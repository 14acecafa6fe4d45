"""The cut on planted groups with known truth."""

from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from jobs.mining.components import Styles, find_styles
from jobs.mining.config import CutConfig
from jobs.mining.cut import (
    Cut,
    Edges,
    _lower_bound,
    candidate_edges,
    choose_cut,
    edge_support,
)
from jobs.mining.neighbours import Neighbours, local_scale
from jobs.mining.partition_search import nearest_in


def planted(sizes: list[int], noise: float, dim: int = 40, seed: int = 0):
    """Vectors around one direction a group, and the group of each."""
    rng = np.random.default_rng(seed)
    label = np.repeat(np.arange(len(sizes)), sizes)
    rows = rng.normal(size=(len(sizes), dim))[label] + noise * rng.normal(size=(len(label), dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16), label


def mine(vectors: NDArray[np.float16], config: CutConfig) -> tuple[Cut, Styles]:
    count = len(vectors)
    neighbours = Neighbours(*nearest_in(vectors, 64))
    edges = candidate_edges(neighbours, local_scale(neighbours, 10), 0.2)
    cut = choose_cut(edges, count, config, seed=0)
    return cut, find_styles(edges, cut, count, neighbours.index.shape[1], config)


@pytest.mark.parametrize(
    ("sizes", "noise"),
    [([12] * 40, 0.4), ([3] * 60, 0.3), ([30, 12, 6, 4, 4, 3] * 6, 0.4)],
)
def test_planted_groups_are_found(sizes: list[int], noise: float) -> None:
    vectors, label = planted(sizes, noise)
    cut, styles = mine(vectors, CutConfig())
    assert cut.trusted
    right = label[styles.edges.first] == label[styles.edges.second]
    assert right.mean() >= 0.95
    covered = {int(label[i]) for members in styles.members for i in members}
    assert len(covered) >= 0.9 * len(sizes)


def test_images_without_style_are_not_trusted() -> None:
    vectors, _ = planted([1] * 400, 0.0, dim=12)
    cut, styles = mine(vectors, CutConfig())
    assert not cut.trusted
    assert styles.members == ()
    assert len(styles.edges) == 0


def test_one_group_alone_is_not_trusted() -> None:
    """Where everything is linked there is nothing that a link could be more alike than."""
    vectors, _ = planted([10], 0.4)
    assert not mine(vectors, CutConfig())[0].trusted


@pytest.mark.parametrize("num_strays", [60, 600])
def test_among_strays_pairs_are_right_or_not_trusted(num_strays: int) -> None:
    vectors, label = planted([10] * 30 + [1] * num_strays, 0.4)
    cut, styles = mine(vectors, CutConfig())
    assert cut.trusted == (num_strays == 60)
    if cut.trusted:
        right = label[styles.edges.first] == label[styles.edges.second]
        assert right.mean() >= 0.95


def test_many_paths_of_a_few_styles_prove_nothing_of_the_others() -> None:
    """Of all paths most are closed, of the paths over most images few are."""
    vectors, _ = planted([60] * 3 + [1] * 500, 0.3, dim=12)
    cut, _ = mine(vectors, CutConfig(min_precision=0.0))
    assert cut.precision < CutConfig().min_precision


def test_few_images_prove_less_than_many() -> None:
    shares, counts = np.array([1.0, 0.9, 0.9]), np.array([4, 30, 3000])
    bounds = _lower_bound(shares, counts)
    assert (bounds < shares).all()
    assert bounds[0] < bounds[1] < bounds[2]
    assert bounds[2] > 0.88


def test_the_cut_follows_the_corpus() -> None:
    """Closely drawn styles are cut at a higher cosine than loose ones."""
    kept = []
    for noise in (0.15, 0.6):
        vectors, label = planted([10] * 40, noise)
        cut, styles = mine(vectors, CutConfig())
        assert cut.trusted
        assert (label[styles.edges.first] == label[styles.edges.second]).mean() >= 0.95
        kept.append(float(styles.edges.cosine.min()))
    assert kept[0] > kept[1] + 0.1


def test_what_is_trusted_follows_the_setting() -> None:
    vectors, _ = planted([1] * 400, 0.0, dim=12)
    assert mine(vectors, CutConfig(min_precision=0.0))[0].trusted
    assert not mine(vectors, CutConfig(min_precision=0.99))[0].trusted


def test_more_tolerance_is_a_stricter_cut() -> None:
    vectors, _ = planted([12] * 40, 0.6)
    strict, usual = (mine(vectors, CutConfig(tolerance=t))[0].threshold for t in (0.3, 0.02))
    assert strict > usual


def test_the_curve_goes_from_loose_to_strict() -> None:
    vectors, _ = planted([12] * 40, 0.4)
    curve = mine(vectors, CutConfig())[0].curve
    for first, second in pairwise(curve):
        assert first.threshold < second.threshold
        assert first.num_edges >= second.num_edges
        assert first.precision <= second.precision
        assert first.coverage >= second.coverage


def test_no_candidates_is_no_cut() -> None:
    empty = np.zeros(0, dtype=np.int64)
    none = np.zeros(0, dtype=np.float32)
    cut = choose_cut(Edges(empty, empty, none, none), 5, CutConfig(), 0)
    assert not cut.trusted


def cliques(groups: list[list[int]], bridges: list[tuple[int, int]]) -> Edges:
    pairs = [(a, b) for group in groups for a in group for b in group if a < b] + bridges
    first, second = np.array(sorted(pairs)).T
    weak = np.array([(a, b) in bridges for a, b in sorted(pairs)])
    score = np.where(weak, 0.1, 0.5).astype(np.float32)
    return Edges(first, second, score, score)


def test_support_is_the_overlap_of_closed_neighbourhoods() -> None:
    edges = cliques([[0, 1, 2, 3]], [(3, 4)])
    support = {
        (int(a), int(b)): float(s)
        for a, b, s in zip(edges.first, edges.second, edge_support(edges, 6), strict=True)
    }
    assert support[0, 1] == pytest.approx(1.0)
    assert support[2, 3] == pytest.approx(4 / 5)
    assert support[3, 4] == pytest.approx(2 / 5)


def test_candidates_are_mutual() -> None:
    neighbours = Neighbours(
        np.array([[1], [2], [1]]), np.array([[0.9], [0.95], [0.95]], dtype=np.float32)
    )
    edges = candidate_edges(neighbours, np.array([0.9, 0.95, 0.95], np.float32), 0.0)
    assert list(zip(edges.first, edges.second, strict=True)) == [(1, 2)]
    assert edges.csls[0] == pytest.approx(0.0)
