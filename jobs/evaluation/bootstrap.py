"""Percentile bootstrap intervals that resample whole styles.

Samples of one style share references, palette and LoRA, so they are no independent draws:
resampling samples would make intervals far too narrow.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean with its 95 % interval.

    `n` counts samples, `num_styles` the clusters behind the interval. With no sample all
    three numbers are NaN.
    """

    mean: float
    lo: float
    hi: float
    n: int
    num_styles: int

    def to_json(self) -> dict[str, float | int | None]:
        """Plain mapping; NaN becomes None, so that the gate sees a missing value."""
        return {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in asdict(self).items()
        }


def resample_weights(num_styles: int, *, num_samples: int, seed: int = 0) -> Array:
    """How often each style is drawn in each resample: (num_samples, num_styles)."""
    generator = np.random.default_rng(seed)
    chances = np.full(num_styles, 1.0 / num_styles)
    return generator.multinomial(num_styles, chances, size=num_samples).astype(np.float64)


def style_sums(values: Mapping[str, Sequence[float]]) -> tuple[Array, Array]:
    """Sum and count of the values of each style, in the mapping's order."""
    sums = np.array([math.fsum(v) for v in values.values()], dtype=np.float64)
    counts = np.array([len(v) for v in values.values()], dtype=np.float64)
    return sums, counts


def mean_interval(
    values: Mapping[str, Sequence[float]], *, num_samples: int = 1000, seed: int = 0
) -> Estimate:
    """Mean over all samples with an interval over styles. Any NaN value makes it NaN."""
    kept = {style: v for style, v in values.items() if len(v)}
    sums, counts = style_sums(kept)
    if not kept or not np.isfinite(sums).all():
        return Estimate(math.nan, math.nan, math.nan, int(counts.sum()), len(kept))
    weights = resample_weights(len(kept), num_samples=num_samples, seed=seed)
    draws = (weights @ sums) / (weights @ counts)
    lo, hi = percentile_interval(draws)
    return Estimate(float(sums.sum() / counts.sum()), lo, hi, int(counts.sum()), len(kept))


def difference_interval(
    left: Mapping[str, Sequence[float]],
    right: Mapping[str, Sequence[float]],
    *,
    num_samples: int = 1000,
    seed: int = 0,
) -> Estimate:
    """mean(left) - mean(right) over the styles both have; each resample draws both alike."""
    return statistic_interval([left, right], _difference, num_samples=num_samples, seed=seed)


def statistic_interval(
    groups: Sequence[Mapping[str, Sequence[float]]],
    statistic: Callable[..., Array],
    *,
    num_samples: int = 1000,
    seed: int = 0,
) -> Estimate:
    """A function of several means, e.g. a ratio, over the styles that all groups have.

    `statistic` receives one array of means a group and returns an array of the same length;
    resamples where it is not finite (a ratio without denominator) are left out.
    """
    styles = [s for s in groups[0] if all(len(group.get(s, ())) for group in groups)]
    num_values = sum(len(groups[0][style]) for style in styles)
    if not styles:
        return Estimate(math.nan, math.nan, math.nan, 0, 0)
    weights = resample_weights(len(styles), num_samples=num_samples, seed=seed)
    points, draws = [], []
    for group in groups:
        sums, counts = style_sums({style: group[style] for style in styles})
        points.append(np.array([sums.sum() / counts.sum()]))
        draws.append((weights @ sums) / (weights @ counts))
    with np.errstate(divide="ignore", invalid="ignore"):
        point, resampled = statistic(*points), statistic(*draws)
    lo, hi = percentile_interval(resampled[np.isfinite(resampled)])
    return Estimate(float(point[0]), lo, hi, num_values, len(styles))


def _difference(left: Array, right: Array) -> Array:
    return left - right


def percentile_interval(draws: Array) -> tuple[float, float]:
    """The middle 95 % of resampled statistics; NaN without any."""
    if not len(draws):
        return math.nan, math.nan
    tail = 100 * (1 - LEVEL) / 2
    lo, hi = np.percentile(draws, [tail, 100 - tail])
    return float(lo), float(hi)
