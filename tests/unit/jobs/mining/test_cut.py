"""The cut and the styles, on planted groups with known truth."""

import numpy as np
import pytest
from numpy.typing import NDArray

from jobs.mining.components import Styles, find_styles
from jobs.mining.config import CutConfig
from jobs.mining.cut import Cut, Edges, candidate_edges, choose_cut, edge_support
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
    [([12] * 40, 0.4), ([3] * 60, 0.3), ([30, 12, 6, 4, 4, 3] * 6, 0.4), ([10], 0.4)],
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


def everything(count: int) -> Cut:
    return Cut(-1.0, 1.0, True, ())


def test_a_bridge_does_not_chain_styles() -> None:
    groups = [list(range(6)), list(range(6, 12)), list(range(12, 18))]
    edges = cliques(groups, [(5, 6), (11, 12)])
    styles = find_styles(edges, everything(18), 18, 64, CutConfig())
    assert [members.tolist() for members in styles.members] == groups


def test_loose_components_are_cut_again_at_their_weak_links() -> None:
    groups = [list(range(6)), list(range(6, 12))]
    bridges = [(a, b) for a in range(3, 6) for b in range(6, 9)]
    edges = cliques(groups, bridges)
    config = CutConfig(min_support=0.0, min_density=0.7)
    styles = find_styles(edges, everything(12), 12, 64, config)
    assert [members.tolist() for members in styles.members] == groups
    assert not ((styles.edges.first < 6) & (styles.edges.second >= 6)).any()


def test_small_components_are_no_styles() -> None:
    edges = cliques([[0, 1], [2, 3, 4]], [])
    styles = find_styles(edges, everything(5), 5, 64, CutConfig(min_style_size=3))
    assert [members.tolist() for members in styles.members] == [[2, 3, 4]]
    assert styles.label.tolist() == [-1, -1, 0, 0, 0]


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
