"""Splits: by style, seeded, stable under growth of nothing, and honest about too few."""

from collections import Counter

import pytest

from i2l_model.errors import InputError
from jobs.mining.config import MiningConfig, SplitConfig
from jobs.mining.split import assign_splits, style_name

NAMES = [f"style-{i}" for i in range(100)]


def test_shares_and_seed() -> None:
    splits = assign_splits(NAMES, SplitConfig(val=0.1, test=0.2))
    assert Counter(splits.values()) == {"train": 70, "val": 10, "test": 20}
    assert splits == assign_splits(NAMES[::-1], SplitConfig(val=0.1, test=0.2))
    assert splits != assign_splits(NAMES, SplitConfig(val=0.1, test=0.2, seed=1))


def test_least_numbers_hold() -> None:
    splits = assign_splits(NAMES[:10], SplitConfig(min_test_styles=4, min_val_styles=2))
    assert Counter(splits.values()) == {"train": 4, "val": 2, "test": 4}


@pytest.mark.parametrize("count", [0, 1, 2])
def test_too_few_styles_is_an_input_error(count: int) -> None:
    with pytest.raises(InputError, match="too few"):
        assign_splits(NAMES[:count], SplitConfig())


def test_shares_must_leave_training_styles() -> None:
    with pytest.raises(ValueError, match="below 1"):
        MiningConfig(split={"val": 0.5, "test": 0.5})


def test_style_names_follow_content_not_order() -> None:
    assert style_name(["a", "b"]) == style_name(["b", "a"])
    assert style_name(["a", "b"]) != style_name(["a", "c"])
