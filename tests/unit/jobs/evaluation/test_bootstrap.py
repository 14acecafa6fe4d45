import math

import numpy as np
import pytest

from jobs.evaluation.bootstrap import difference_interval, mean_interval, statistic_interval


def styles(seed: int, *, between: float, within: float, num_styles: int = 40, per_style: int = 5):
    generator = np.random.default_rng(seed)
    centres = generator.normal(1.0, between, num_styles)
    return {
        f"s{i}": generator.normal(centre, within, per_style).tolist()
        for i, centre in enumerate(centres)
    }


def test_interval_covers_the_true_mean_about_as_often_as_it_says():
    hits = 0
    for seed in range(200):
        found = mean_interval(styles(seed, between=1.0, within=0.2), num_samples=300)
        hits += found.lo <= 1.0 <= found.hi
    assert 0.89 <= hits / 200 <= 0.99


def test_samples_of_one_style_count_as_one_cluster():
    """Ten times as many samples of the same styles do not make the interval narrower."""
    values = styles(1, between=1.0, within=0.0, per_style=1)
    few = mean_interval(values)
    many = mean_interval({name: column * 10 for name, column in values.items()})
    assert many.hi - many.lo == pytest.approx(few.hi - few.lo)
    assert (few.n, many.n, many.num_styles) == (40, 400, 40)


def test_paired_difference_is_narrower_than_its_parts():
    left = styles(3, between=2.0, within=0.0)
    right = {name: [value - 0.5 for value in values] for name, values in left.items()}
    gap = difference_interval(left, right)
    assert (gap.mean, gap.lo, gap.hi) == pytest.approx((0.5, 0.5, 0.5))


def test_same_seed_gives_the_same_interval():
    values = styles(2, between=1.0, within=1.0)
    assert mean_interval(values, seed=4) == mean_interval(values, seed=4)


def test_nan_and_nothing_give_no_number():
    broken = mean_interval({"a": [1.0, math.nan], "b": [2.0]})
    assert math.isnan(broken.mean)
    assert broken.to_json()["mean"] is None
    empty = mean_interval({"a": []})
    assert (empty.n, empty.num_styles) == (0, 0)
    assert empty.to_json()["lo"] is None


def test_ratio_leaves_out_resamples_without_denominator():
    top = {"a": [1.0], "b": [1.0]}
    bottom = {"a": [0.0], "b": [1.0]}
    found = statistic_interval([top, bottom], lambda t, b: t / b)
    assert found.mean == pytest.approx(2.0)
    assert math.isfinite(found.lo)
    assert math.isfinite(found.hi)


def test_only_shared_styles_are_compared():
    gap = difference_interval({"a": [3.0], "b": [9.0]}, {"a": [1.0]})
    assert (gap.mean, gap.num_styles) == (2.0, 1)
