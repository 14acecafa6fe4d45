"""How long it takes to get to a style: one forward pass against training on the references."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True, slots=True)
class TrainingPoint:
    """Mean style distance of the per-style LoRA after some training."""

    num_steps: int
    seconds: float
    distance: float


@dataclass(frozen=True, slots=True)
class Match:
    """When per-style training reaches the style distance of i2L.

    `seconds` is None where no budget reached it; `ratio` is then a lower bound, from the longest
    budget.
    """

    i2l_seconds: float
    distance: float
    reached: bool
    seconds: float | None
    ratio: float


def match_training(
    i2l_seconds: float,
    distance: float,
    null_distance: float,
    curve: Sequence[TrainingPoint],
) -> Match | None:
    """Interpolate the training curve, which starts at the null's distance and 0 seconds.

    None without a curve, with a distance that is no number, or where i2L is no nearer to the style
    than the null, which takes no training to match.
    """
    if not curve or not all(map(math.isfinite, (i2l_seconds, distance, null_distance))):
        return None
    if distance >= null_distance:
        return None
    points = [(0.0, null_distance), *((p.seconds, p.distance) for p in curve)]
    for (left_s, left_d), (right_s, right_d) in pairwise(points):
        if right_d <= distance:
            share = (left_d - distance) / (left_d - right_d) if left_d > right_d else 0.0
            seconds = left_s + max(0.0, share) * (right_s - left_s)
            return Match(i2l_seconds, distance, True, seconds, seconds / i2l_seconds)
    return Match(i2l_seconds, distance, False, None, curve[-1].seconds / i2l_seconds)


def median_seconds(by_style: Mapping[str, float]) -> float:
    """Median over styles; NaN without any."""
    return statistics.median(by_style.values()) if by_style else math.nan
