"""Styles are the parts of the graph that hold together."""

from itertools import pairwise

import numpy as np

from jobs.mining.components import find_styles
from jobs.mining.config import CutConfig
from jobs.mining.cut import Cut, Edges


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


def test_without_trust_there_are_no_styles() -> None:
    edges = cliques([list(range(6))], [])
    styles = find_styles(edges, Cut(-1.0, 0.0, False, ()), 6, 64, CutConfig())
    assert styles.members == ()
    assert len(styles.edges) == 0
    assert styles.label.tolist() == [-1] * 6


def test_weaker_links_than_the_cut_hold_nothing_together() -> None:
    groups = [list(range(4)), list(range(4, 8))]
    bridges = [(a, b) for a in groups[0] for b in groups[1]]
    styles = find_styles(cliques(groups, bridges), Cut(0.3, 1.0, True, ()), 8, 64, CutConfig())
    assert [members.tolist() for members in styles.members] == groups


def test_a_long_chain_of_styles_comes_apart_in_few_passes() -> None:
    groups = [list(range(start, start + 8)) for start in range(0, 8 * 300, 8)]
    bridges = [(a[-1], b[0]) for a, b in pairwise(groups)]
    config = CutConfig(min_support=0.0)
    styles = find_styles(cliques(groups, bridges), everything(2400), 2400, 64, config)
    assert [members.tolist() for members in styles.members] == groups
