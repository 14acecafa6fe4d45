"""Stage 3: thresholds on what the input's JSON says about a picture.

Read are licence and opt-out fields and the score columns that img2dataset and LAION write; any
other field, labels of test corpora among them, is passed through and never looked at.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jobs.mining.config import FilterConfig
from jobs.mining.features import Samples

_OPT_OUT = ("opt_out", "opted_out", "noai", "tdm_reservation")
_LICENCE = ("licence", "license", "LICENSE")
_AESTHETIC = ("aesthetic", "AESTHETIC_SCORE", "aesthetic_score")
_WATERMARK = ("pwatermark", "watermark")
_NSFW = ("punsafe", "nsfw")


@dataclass(frozen=True, slots=True)
class FilterOutcome:
    """What one filter did."""

    name: str
    reason: str
    num_in: int
    num_out: int
    threshold: object
    scores: str


def apply_filters(samples: Samples, config: FilterConfig) -> None:
    """Set the drop reason of embedded samples that miss a threshold, in place."""
    for i in samples.embedded:
        samples.reason[i] = filter_reason(json.loads(samples.meta[i]), config)


def filter_reason(meta: Mapping[str, Any], config: FilterConfig) -> str:
    """The first reason to drop a picture with this metadata, "" if there is none.

    A score that a threshold asks for and the metadata lack counts as missed.
    """
    if config.respect_opt_out and any(_is_true(meta.get(name)) for name in _OPT_OUT):
        return "opt_out"
    if config.licences is not None and _first(meta, _LICENCE) not in config.licences:
        return "licence_not_allowed"
    if config.min_aesthetic is not None and not _at_least(meta, _AESTHETIC, config.min_aesthetic):
        return "low_aesthetic"
    if config.max_watermark is not None and not _at_most(meta, _WATERMARK, config.max_watermark):
        return "watermark"
    if config.max_nsfw is not None and not _at_most(meta, _NSFW, config.max_nsfw):
        return "nsfw"
    return ""


def _is_true(value: object) -> bool:
    return value is True or str(value).strip().lower() in ("1", "true", "yes", "y")


def _first(meta: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    return next((meta[name] for name in names if meta.get(name) is not None), None)


def _number(meta: Mapping[str, Any], names: tuple[str, ...]) -> float | None:
    try:
        return float(_first(meta, names))
    except (TypeError, ValueError):
        return None


def _at_least(meta: Mapping[str, Any], names: tuple[str, ...], limit: float) -> bool:
    value = _number(meta, names)
    return value is not None and value >= limit


def _at_most(meta: Mapping[str, Any], names: tuple[str, ...], limit: float) -> bool:
    value = _number(meta, names)
    return value is not None and value <= limit
