"""Splits: by style, seeded, stable under growth of nothing, and honest about too few."""

import itertools
from collections import Counter

import numpy as np
import pytest
from numpy.typing import NDArray

from i2l_model.errors import InputError
from jobs.mining.components import Styles, styles_of
from jobs.mining.config import MiningConfig, SplitConfig
from jobs.mining.cut import Edges
from jobs.mining.ledger import Ledger
from jobs.mining.split import assign_splits, settle_styles, style_name

NAMES = [f"style-{i:02}" for i in range(100)]
SIZE = 3


def split(
    names: list[str], config: SplitConfig, source: NDArray[np.uint64] | None = None
) -> dict[str, str]:
    members = {name: SIZE * NAMES.index(name) + np.arange(SIZE) for name in names}
    unknown = np.zeros(SIZE * len(NAMES), np.uint64)
    sources = unknown if source is None else source
    return assign_splits(members, hashes(len(unknown)), sources, Ledger.empty(config), config)


def hashes(count: int) -> NDArray[np.uint64]:
    return np.random.default_rng(0).integers(0, 2**63, (count, 2)).astype(np.uint64)


def styles_with(groups: list[list[int]], count: int) -> Styles:
    ends = np.array([(a, b) for g in groups for a in g for b in g if a < b], np.int32).T
    score = np.ones(ends.shape[1], np.float32)
    return styles_of([np.array(g) for g in groups], Edges(ends[0], ends[1], score, score), count)


def known(groups: dict[str, list[int]], splits: dict[str, str], sha: NDArray[np.uint64]) -> Ledger:
    members = {name: np.array(images) for name, images in groups.items()}
    return Ledger.empty(SplitConfig()).extended(members, splits, sha)


def test_shares_and_seed() -> None:
    splits = split(NAMES, SplitConfig(val=0.1, test=0.2))
    assert Counter(splits.values()) == {"train": 70, "val": 10, "test": 20}
    assert splits == split(NAMES[::-1], SplitConfig(val=0.1, test=0.2))
    assert splits != split(NAMES, SplitConfig(val=0.1, test=0.2, seed=1))


def test_least_numbers_hold() -> None:
    splits = split(NAMES[:10], SplitConfig(min_test_styles=4, min_val_styles=2))
    assert Counter(splits.values()) == {"train": 4, "val": 2, "test": 4}


@pytest.mark.parametrize("count", [0, 1, 2])
def test_too_few_styles_is_an_input_error(count: int) -> None:
    with pytest.raises(InputError, match="too few"):
        split(NAMES[:count], SplitConfig())


def test_shares_must_leave_training_styles() -> None:
    with pytest.raises(ValueError, match="below 1"):
        MiningConfig(split={"val": 0.5, "test": 0.5})


def test_style_names_follow_content_not_order() -> None:
    sha = hashes(3)
    assert style_name(sha[[0, 1]]) == style_name(sha[[1, 0]])
    assert style_name(sha[[0, 1]]) != style_name(sha[[0, 2]])


def test_styles_of_one_source_share_a_split() -> None:
    source = np.zeros(SIZE * len(NAMES), np.uint64)
    source[::SIZE] = 1 + np.arange(100) // 4  # of one image a style; four styles an artist
    splits = split(NAMES, SplitConfig(val=0.1, test=0.2), source)
    artists = [splits[name] for name in NAMES]
    assert all(len(set(artists[n : n + 4])) == 1 for n in range(0, 100, 4))
    assert Counter(splits.values()) == {"train": 68, "val": 12, "test": 20}


def test_one_source_of_all_styles_cannot_be_split() -> None:
    source = np.ones(SIZE * len(NAMES), np.uint64)
    with pytest.raises(InputError, match=r"joined to 1 by their sources\).*by_source=false"):
        split(NAMES, SplitConfig(), source)
    assert len(split(NAMES, SplitConfig(by_source=False), source)) == 100


def of_groups(sizes: list[int], config: SplitConfig, ledger: Ledger | None = None) -> Counter[str]:
    """How many styles each split has of groups of some sizes, joined by their sources."""
    number = np.repeat(np.arange(len(sizes)), sizes)
    members = {f"{n:03}": np.array([2 * n, 2 * n + 1]) for n in range(len(number))}
    source = np.stack([number + 1, np.zeros(len(number))], axis=1).astype(np.uint64).ravel()
    before = ledger or Ledger.empty(config)
    return Counter(assign_splits(members, hashes(len(source)), source, before, config).values())


@pytest.mark.parametrize("seed", range(5))
def test_a_source_of_most_styles_trains(seed: int) -> None:
    counts = of_groups([90] + [1] * 10, SplitConfig(seed=seed))
    assert counts["train"] >= 90
    assert counts["val"] >= 1
    assert counts["test"] >= 1
    counts = of_groups([900, *[5] * 20], SplitConfig(val=0.02, test=0.02, seed=seed))
    assert counts == {"train": 960, "val": 20, "test": 20}


def test_least_numbers_are_refused_only_where_no_choice_meets_them() -> None:
    rng = np.random.default_rng(0)
    outcomes = Counter[bool]()
    for seed in range(150):
        sizes = rng.integers(1, 6, rng.integers(3, 7)).tolist()
        test, val = rng.integers(0, 7, 2).tolist()
        possible = any(
            0 in choice
            and sum(s for s, c in zip(sizes, choice, strict=True) if c == 1) >= val
            and sum(s for s, c in zip(sizes, choice, strict=True) if c == 2) >= test
            for choice in itertools.product(range(3), repeat=len(sizes))
        )
        config = SplitConfig(min_val_styles=val, min_test_styles=test, seed=seed)
        outcomes[possible] += 1
        if possible:
            counts = of_groups(sizes, config)
            assert counts["val"] >= val
            assert counts["test"] >= test
            assert counts["train"]
        else:
            with pytest.raises(InputError, match="too few"):
                of_groups(sizes, config)
    assert min(outcomes[True], outcomes[False]) > 10


def test_styles_of_an_earlier_run_count() -> None:
    images = {"t": [0, 1], "v": [2, 3], "e": [4, 5]}
    ledger = known(images, {"t": "train", "v": "val", "e": "test"}, hashes(8))
    assert of_groups([1, 1, 1, 1], SplitConfig(), ledger) == {"train": 2, "val": 1, "test": 1}
    trained = known(images, dict.fromkeys(images, "train"), hashes(8))
    with pytest.raises(InputError, match=r"4 styles .*3 of them in the split of an earlier run"):
        of_groups([1, 1, 1, 1], SplitConfig(), trained)


def test_images_keep_their_split_and_styles_their_id() -> None:
    sha = hashes(12)
    ledger = known({"a": [0, 1, 2], "b": [3, 4, 5]}, {"a": "train", "b": "test"}, sha)
    found = styles_with([[0, 1, 2, 3, 6], [4, 5, 7], [8, 9, 10]], 12)
    settled, names = settle_styles(found, sha, ledger)
    assert names[:2] == ["a", "b"]
    assert [group.tolist() for group in settled.members] == [[0, 1, 2, 6], [4, 5, 7], [8, 9, 10]]
    assert settled.label[3] == -1
    assert not (settled.edges.first == 3).any()
    assert not (settled.edges.second == 3).any()
    members = dict(zip(names, settled.members, strict=True))
    no_source = np.zeros(12, np.uint64)
    splits = assign_splits(members, sha, no_source, ledger, SplitConfig())
    assert splits["a"] == "train"
    assert splits["b"] == "test"
    assert splits[names[2]] == "val"


def test_of_two_parts_of_a_style_the_larger_keeps_the_id() -> None:
    sha = hashes(6)
    ledger = known({"a": [0, 1, 2, 3, 4]}, {"a": "val"}, sha)
    _, names = settle_styles(styles_with([[0, 1], [2, 3, 4, 5]], 6), sha, ledger)
    assert names[1] == "a"
    assert names[0] != "a"


def test_a_new_style_that_ties_splits_together_has_none() -> None:
    sha, source = hashes(9), np.array([1, 0, 0, 2, 0, 0, 1, 2, 0], np.uint64)
    ledger = known({"a": [0, 1, 2], "b": [3, 4, 5]}, {"a": "train", "b": "test"}, sha)
    members = {name: np.arange(3) + 3 * n for n, name in enumerate("abc")}
    config = SplitConfig(min_val_styles=0)
    assert assign_splits(members, sha, source, ledger, config) == {"a": "train", "b": "test"}
    source[7] = 0
    assert assign_splits(members, sha, source, ledger, config)["c"] == "train"


@pytest.mark.parametrize("seed", range(30))
def test_growth_moves_nobody_and_its_ledger_repeats_it(seed: int) -> None:
    """Styles merge, break up and lose pictures, sources tie them; each run is made twice."""
    rng = np.random.default_rng(seed)
    sha = hashes(400)
    source = (rng.integers(0, 60, 400) * (rng.random(400) < 0.1)).astype(np.uint64)
    config = SplitConfig(val=0.2, test=0.2, by_source=seed % 3 > 0)
    ledger = Ledger.empty(config)
    label = np.arange(400) % 50
    history: dict[int, str] = {}
    for present in (0.4, 0.7, 0.9):
        label = np.where(rng.random(400) < 0.15, rng.integers(0, 50, 400), label)
        here = rng.random(400) < present
        groups = [np.flatnonzero(here & (label == n)).tolist() for n in range(50)]
        found = styles_with([group for group in groups if len(group) > 1], 400)
        has_pairs = rng.random(50) < 0.8
        results = []
        for _ in range(2):
            styles, names = settle_styles(found, sha, ledger)
            assert len(set(names)) == len(names)
            named = zip(names, styles.members, has_pairs, strict=False)
            members = {name: images for name, images, paired in named if paired}
            splits = assign_splits(members, sha, source, ledger, config)
            of_image = {int(i): splits[name] for name in splits for i in members[name]}
            assert of_image == of_image | {i: history[i] for i in of_image.keys() & history.keys()}
            history |= of_image
            ledger = ledger.extended(members, splits, sha)
            results.append((names, splits, len(ledger)))
        assert results[0] == results[1]
