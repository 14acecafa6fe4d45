import math

import pytest

from jobs.evaluation.speed import TrainingPoint, match_training, median_seconds

CURVE = [TrainingPoint(50, 8.0, 0.3), TrainingPoint(100, 16.0, 0.2), TrainingPoint(200, 32.0, 0.18)]


def test_time_is_interpolated_between_budgets():
    match = match_training(0.01, 0.25, 0.5, CURVE)
    assert match.reached
    assert match.seconds == pytest.approx(12.0)
    assert match.ratio == pytest.approx(1200.0)


def test_first_budget_counts_from_the_null():
    assert match_training(0.01, 0.4, 0.5, CURVE).seconds == pytest.approx(4.0)


def test_unreached_distance_says_so_with_a_lower_bound():
    match = match_training(0.01, 0.1, 0.5, CURVE)
    assert (match.reached, match.seconds) == (False, None)
    assert match.ratio == pytest.approx(3200.0)


def test_no_curve_or_no_number_gives_no_match():
    assert match_training(0.01, 0.1, 0.5, []) is None
    assert match_training(0.01, math.nan, 0.5, CURVE) is None
    assert match_training(0.01, 0.5, 0.5, CURVE) is None
    assert math.isnan(median_seconds({}))
