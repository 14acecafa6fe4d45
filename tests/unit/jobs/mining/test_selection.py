"""Pairs: far apart in content, capped, never the same head."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from jobs.mining.components import Styles
from jobs.mining.config import SelectionConfig, WorkerConfig
from jobs.mining.cut import Edges
from jobs.mining.samples import text_hash
from jobs.mining.selection import content_ceiling, farthest, select_pairs


def styles_of(groups: list[list[int]]) -> Styles:
    links = [(a, b) for group in groups for a in group for b in group if a < b]
    first, second = np.array(links).T
    score = np.full(len(links), 0.9, dtype=np.float32)
    label = np.full(1 + max(map(max, groups)), -1)
    for number, group in enumerate(groups):
        label[group] = number
    return Styles(tuple(map(np.array, groups)), Edges(first, second, score, score), label)


def random_content(count: int, seed: int = 0) -> NDArray[np.float32]:
    rows = np.random.default_rng(seed).normal(size=(count, 16)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def select(groups, heads, content, sources=None, **settings):
    config = SelectionConfig(**{"content_quantile": 1.0, **settings})
    hashes = np.array([text_hash(head) for head in heads], np.uint64)
    origin = np.zeros(len(heads), np.uint64) if sources is None else sources
    styles = styles_of(groups)
    return select_pairs(styles, hashes, origin, content, config, 0, WorkerConfig())


def test_pairs_stay_inside_styles_and_avoid_equal_heads() -> None:
    groups = [list(range(10)), list(range(10, 20))]
    heads = [f"h{i % 5}" for i in range(20)]
    selection = select(groups, heads, random_content(20))
    assert len(selection.pairs) == 20
    for pair in selection.pairs:
        assert 1 <= len(pair.refs) <= 4
        assert len(set(pair.refs)) == len(pair.refs)
        assert all(ref // 10 == pair.target // 10 for ref in pair.refs)
        assert heads[pair.target] not in {heads[ref] for ref in pair.refs}
    assert selection.left_out["same_head"] == 10


def test_unknown_heads_are_never_equal() -> None:
    assert len(select([[0, 1, 2]], [""] * 3, random_content(3)).pairs) == 3


def test_uses_and_pairs_are_capped() -> None:
    group = list(range(40))
    selection = select(
        [group],
        [str(i) for i in group],
        random_content(40),
        max_uses_per_image=3,
        max_pairs_per_style=25,
    )
    uses = Counter(i for pair in selection.pairs for i in (pair.target, *pair.refs))
    assert max(uses.values()) <= 3
    assert len(selection.pairs) <= 25


def test_alike_contents_are_left_out() -> None:
    content = random_content(12)
    content[1] = content[0]
    selection = select(
        [list(range(12))], [str(i) for i in range(12)], content, content_quantile=0.9
    )
    for pair in selection.pairs:
        assert pair.content_similarity <= selection.content_ceiling + 1e-6
        assert {0, 1} - {pair.target, *pair.refs}
    assert selection.left_out["similar_content"] > 0
    assert (0, 1) in selection.examples["similar_content"]


def test_farthest_points_spread() -> None:
    angle = np.radians([0, 5, 90, 95, 180])
    content = np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)
    assert farthest(0, np.array([1, 2, 3, 4]), content, 2) == (4, 2)
    assert farthest(0, np.array([1]), content, 4) == (1,)


def test_ceiling_is_a_quantile_of_random_pairs() -> None:
    content = random_content(500)
    median = content_ceiling(content, 0.5, seed=0)
    assert abs(median) < 0.05
    assert content_ceiling(content, 0.9, seed=0) > median


def grid(num_styles: int, size: int) -> list[list[int]]:
    return np.arange(num_styles * size).reshape(num_styles, size).tolist()


def test_near_copies_are_never_paired() -> None:
    selection = select([[0, 1, 2]], ["a", "b", "c"], random_content(3), max_style_similarity=0.9)
    assert len(selection.pairs) == 0
    assert selection.left_out == {"same_head": 0, "near_copy": 3, "similar_content": 0}
    assert selection.examples["near_copy"] == [(0, 1), (0, 2), (1, 2)]


def test_batches_and_files_change_nothing(
    ray_cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = random_content(90).astype(np.float16)
    heads = [str(i % 40) for i in range(90)]
    whole = select(grid(9, 10), heads, content)
    mapped = np.memmap(tmp_path / "content.bin", np.float16, "w+", shape=content.shape)
    mapped[:] = content
    monkeypatch.setattr("jobs.mining.selection._IMAGES_A_BATCH", 20)
    monkeypatch.setattr("jobs.mining.selection._EDGES", 7)
    assert select(grid(9, 10), heads, mapped) == whole
    assert len(whole.pairs) == 90


def test_a_total_is_shared_by_the_root_of_the_sizes() -> None:
    groups = [list(range(64)), list(range(64, 80)), list(range(80, 84))]
    heads = [str(i) for i in range(84)]
    selection = select(groups, heads, random_content(84), max_pairs=28)
    assert Counter(pair.style for pair in selection.pairs) == {0: 16, 1: 8, 2: 4}
    assert selection.capped["total"] == 84 - 28


def test_a_source_has_its_share_of_the_pairs_only() -> None:
    size = 10
    groups, heads = grid(30, size), [str(i) for i in range(300)]
    sources = np.repeat(np.arange(30, dtype=np.uint64), size)
    sources[: 5 * size] = 1  # five of thirty styles; 0 stays unknown
    sources[-size:] = 0
    selection = select(groups, heads, random_content(300), sources)
    of_source = Counter(int(sources[pair.target]) for pair in selection.pairs)
    assert of_source[1] == 15  # 5 % of 300
    assert of_source[0] == size
    assert selection.capped["source"] == 50 - 15
    assert {pair.style for pair in selection.pairs} >= set(range(5, 30))


def test_two_sources_may_fill_half_each() -> None:
    sources = np.repeat(np.array([1, 2], np.uint64), 20)
    selection = select(grid(4, 10), [str(i) for i in range(40)], random_content(40), sources)
    assert len(selection.pairs) == 40
