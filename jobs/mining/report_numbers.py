"""The numbers of the mining report, as ``report.json`` holds them.

All of it depends on input and settings alone: no time, no place. Shapes: N samples, M images that
were searched, P pairs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobs.mining.config import MiningConfig
from jobs.mining.drop_reasons import DUPLICATES, SHARD_DAMAGE
from jobs.mining.filters import FilterOutcome
from jobs.mining.histogram import histogram, quantiles
from jobs.mining.mined import MinedPairs
from jobs.mining.pair_numbers import (
    cap_numbers,
    cut_numbers,
    diversity_numbers,
    image_uses,
    link_numbers,
    pair_numbers,
    style_numbers,
)
from jobs.mining.result import result_hash
from jobs.mining.split import SPLITS
from jobs.provenance import without_execution

REPORT_SCHEMA = "i2l.mining-report/2"
_MAX_DAMAGED_SHARDS = 20


@dataclass(frozen=True, slots=True)
class ReportSource:
    """What a mining run found, for the report.

    Attributes:
        config: All settings.
        input_hash: Of all input shards.
        counts: Numbers of images, styles and pairs.
        drops: Dropped samples by reason, most frequent first.
        outcomes: What each filter did.
        shard_names: Names of the input shards, relative to the input.
        shard: (N,) shard number of each sample.
        reason: (N,) reason of each sample as a place in ``reason_names``.
        reason_names: Reasons; "" for kept samples.
        scores: Score name → (N,) values, NaN where not known.
        ignored_members: Suffix → files of the shards that were never opened.
        mined: Styles and pairs.
    """

    config: MiningConfig
    input_hash: str
    counts: Mapping[str, int]
    drops: Mapping[str, int]
    outcomes: Sequence[FilterOutcome]
    shard_names: Sequence[str]
    shard: NDArray[np.integer]
    reason: NDArray[np.integer]
    reason_names: Sequence[str]
    scores: Mapping[str, NDArray[np.float32]]
    ignored_members: Mapping[str, int]
    mined: MinedPairs


def summarise(source: ReportSource) -> dict[str, Any]:
    """The content of ``report.json``; see docs/mining.md for its fields."""
    mined, config = source.mined, source.config
    uses = image_uses(mined)
    numbers = {
        "counts": dict(source.counts),
        "input": _input(source),
        "steps": _steps(source),
        "drops": dict(source.drops),
        "scores": _scores(source),
        "cut": cut_numbers(mined),
        "links": link_numbers(mined),
        "pairs": pair_numbers(mined),
        "styles": style_numbers(mined),
        "splits": _splits(source, uses),
        "diversity": diversity_numbers(mined, uses, config.seed),
        "caps": cap_numbers(mined, uses, config.selection),
    }
    return {
        "schema": REPORT_SCHEMA,
        **_rounded(numbers),
        "config": without_execution(config.model_dump(mode="json")),
        "config_hash": result_hash(config),
    }


def _rounded(value: Any) -> Any:
    """The same with floats of six decimals."""
    if isinstance(value, dict):
        return {name: _rounded(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return round(value, 6) if isinstance(value, float) else value


def _input(source: ReportSource) -> dict[str, Any]:
    damaged = damaged_shards(source)
    return {
        "hash": source.input_hash,
        "num_shards": len(source.shard_names),
        "num_damaged": len(damaged),
        "damaged": damaged[:_MAX_DAMAGED_SHARDS],
        "ignored_members": dict(source.ignored_members),
    }


def damaged_shards(source: ReportSource) -> list[dict[str, Any]]:
    """Shards that lost samples to damage of the file, those that lost most first."""
    names = list(source.reason_names)
    codes = [names.index(reason) for reason in SHARD_DAMAGE if reason in names]
    rows = np.flatnonzero(np.isin(source.reason, codes))
    kinds, counts = np.unique(
        np.stack([source.shard[rows], source.reason[rows]]), axis=1, return_counts=True
    )
    lost: dict[int, dict[str, int]] = {}
    for shard, code, count in zip(*kinds.tolist(), counts.tolist(), strict=True):
        lost.setdefault(shard, {})[names[code]] = count
    order = sorted(lost, key=lambda shard: (-sum(lost[shard].values()), shard))
    return [
        {
            "name": source.shard_names[shard],
            "num_lost": sum(lost[shard].values()),
            "reasons": dict(sorted(lost[shard].items())),
        }
        for shard in order
    ]


def _steps(source: ReportSource) -> list[dict[str, Any]]:
    """Each step with the images that reached it and those that passed."""
    drops, outcomes, mined = source.drops, source.outcomes, source.mined
    known = {*DUPLICATES, *(outcome.reason for outcome in outcomes)}
    num_read = sum(count for reason, count in drops.items() if reason not in known)
    left = source.counts["images"]
    steps = [_step("ingest", left, left - num_read, decided_by="mining.ingest")]
    left -= num_read
    for outcome in outcomes:
        steps.append(_filter_step(outcome, source))
        left = outcome.num_out
    for reason in DUPLICATES:
        count = drops.get(reason, 0)
        steps.append(_step(reason, left, left - count, decided_by="mining.dedup"))
        left -= count
    num_styled = int((mined.styles.label >= 0).sum())
    used = source.counts["images_used"]
    kept = "kept in samples.parquet, without a style"
    steps.append(_step("style", left, num_styled, decided_by=kept))
    kept = "kept; the rest has no partner of other content, or a cap was reached"
    steps.append(_step("pair", num_styled, used, decided_by=kept))
    return steps


def _step(
    name: str, num_in: int, num_out: int, *, decided_by: str, skipped: bool = False
) -> dict[str, Any]:
    return {
        "name": name,
        "num_in": num_in,
        "num_out": num_out,
        "skipped": skipped,
        "decided_by": decided_by,
    }


def _filter_step(outcome: FilterOutcome, source: ReportSource) -> dict[str, Any]:
    if outcome.threshold is None:
        why = "switched off" if outcome.scores != "skip" else "no scores, as set"
        return _step(outcome.name, outcome.num_in, outcome.num_in, decided_by=why, skipped=True)
    by = f"scores from {outcome.scores}" if outcome.name in source.scores else outcome.scores
    if outcome.threshold is not True:
        by += f", limit {_listed(outcome.threshold)}"
    return _step(outcome.name, outcome.num_in, outcome.num_out, decided_by=by)


def _listed(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)


def _scores(source: ReportSource) -> dict[str, Any]:
    """Histogram of each score that is known for some images."""
    found = {}
    outcomes = {outcome.name: outcome for outcome in source.outcomes}
    for name, values in source.scores.items():
        num_known = int(np.isfinite(values).sum())
        if not num_known:
            continue
        outcome = outcomes.get(name)
        found[name] = {
            "num_known": num_known,
            "num_unknown": len(values) - num_known,
            "threshold": outcome.threshold if outcome else None,
            "source": outcome.scores if outcome else "",
            "quantiles": quantiles(values),
            "histogram": histogram({"images": values}).as_json(),
        }
    return found


def _splits(source: ReportSource, uses: NDArray[np.int64]) -> dict[str, Any]:
    """Styles, pairs and images of each split; an image's split is that of its style."""
    mined, counts = source.mined, source.counts
    place = {name: number for number, name in enumerate(SPLITS)}
    of_style = np.array([place.get(mined.splits.get(n, ""), -1) for n in mined.names], dtype=int)
    label = mined.styles.label[(uses > 0) & (mined.styles.label >= 0)]
    images = np.bincount(of_style[label] + 1, minlength=len(SPLITS) + 1)[1:]
    return {
        name: {
            "styles": counts[f"styles_{name}"],
            "pairs": counts[f"pairs_{name}"],
            "images": int(images[number]),
        }
        for name, number in place.items()
    }
