"""Filters: thresholds on the columns of the feature files, each in its own file.

A filter looks at scores that are there already, so that a changed cut embeds nothing again. A
threshold whose score is not known counts as missed: unknown is not good enough.
"""

from dataclasses import dataclass

from jobs.mining.config import MiningConfig
from jobs.mining.filters.aesthetic import AestheticFilter
from jobs.mining.filters.filter import Filter, ScoredSamples
from jobs.mining.filters.licence import LicenceFilter
from jobs.mining.filters.nsfw import NsfwFilter
from jobs.mining.filters.opt_out import OptOutFilter
from jobs.mining.filters.watermark import WatermarkFilter

__all__ = ["Filter", "FilterOutcome", "ScoredSamples", "apply_filters"]


@dataclass(frozen=True, slots=True)
class FilterOutcome:
    """What one filter did.

    Attributes:
        name: Name of the score.
        reason: Slug under which its drops are counted.
        num_in: Samples that reached it.
        num_out: Samples that passed it.
        threshold: Its setting; None where the filter is off.
        scores: Where its scores came from: "metadata", "skip" or a model's folder or hub id.
    """

    name: str
    reason: str
    num_in: int
    num_out: int
    threshold: object
    scores: str


def apply_filters(samples: ScoredSamples, config: MiningConfig) -> list[FilterOutcome]:
    """Drop the kept samples that miss a threshold, each for the first one it misses."""
    limits, scorers = config.filters, config.scorers
    stages: tuple[tuple[Filter, str], ...] = (
        (OptOutFilter(limits.respect_opt_out or None), "metadata"),
        (LicenceFilter(limits.licences), "metadata"),
        (AestheticFilter(limits.min_aesthetic), scorers.aesthetic.source),
        (WatermarkFilter(limits.max_watermark), scorers.watermark.source),
        (NsfwFilter(limits.max_nsfw), scorers.nsfw.source),
    )
    return [_apply(stage, samples, scores) for stage, scores in stages]


def _apply(stage: Filter, samples: ScoredSamples, scores: str) -> FilterOutcome:
    kept = samples.is_kept()
    num_in = num_out = int(kept.sum())
    if stage.threshold is not None:
        missed = kept & ~stage.passes(samples)
        samples.drop(missed, stage.reason)
        num_out = num_in - int(missed.sum())
    return FilterOutcome(stage.name, stage.reason, num_in, num_out, stage.threshold, scores)
