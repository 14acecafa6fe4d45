"""The numbers of the mining report, as ``report.json`` holds them.

All of it depends on input and settings alone: no time, no place. Shapes: N samples, M images that
were searched, P pairs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobs.mining.config import MiningConfig
from jobs.mining.diversity import gini, pair_cosines, same_style_distance, style_vendi
from jobs.mining.drop_reasons import DUPLICATES, SHARD_DAMAGE
from jobs.mining.filters import FilterOutcome
from jobs.mining.histogram import histogram, quantiles
from jobs.mining.mined import MinedPairs
from jobs.mining.result import result_hash
from jobs.mining.split import SPLITS
from jobs.provenance import without_execution

REPORT_SCHEMA = "i2l.mining-report/2"
_MAX_DAMAGED_SHARDS = 20
_SAMPLED_REFS = 20_000
_MAX_USES_SHOWN = 16


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
    uses = image_uses(source.mined)
    numbers = {
        "counts": dict(source.counts),
        "input": _input(source),
        "steps": _steps(source),
        "drops": dict(source.drops),
        "scores": _scores(source),
        "cut": _cut(source.mined),
        "links": _links(source.mined),
        "pairs": _pairs(source.mined),
        "styles": _styles(source.mined),
        "splits": _splits(source, uses),
        "diversity": _diversity(source, uses),
        "caps": _caps(source, uses),
    }
    return {
        "schema": REPORT_SCHEMA,
        **_rounded(numbers),
        "config": without_execution(source.config.model_dump(mode="json")),
        "config_hash": result_hash(source.config),
    }


def _rounded(value: Any) -> Any:
    """The same with floats of six decimals."""
    if isinstance(value, dict):
        return {name: _rounded(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return round(value, 6) if isinstance(value, float) else value


def image_uses(mined: MinedPairs) -> NDArray[np.int64]:
    """(M,) pairs that use each image, as target or reference."""
    images = (i for pair in mined.selection.pairs for i in (pair.target, *pair.refs))
    return np.bincount(np.fromiter(images, dtype=np.int64), minlength=len(mined.rows))


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


def _cut(mined: MinedPairs) -> dict[str, Any]:
    cut, csls = mined.cut, mined.edges.csls
    above = csls >= cut.threshold
    chosen = next((point for point in cut.curve if point.threshold == cut.threshold), None)
    return {
        "threshold": cut.threshold if np.isfinite(cut.threshold) else None,
        "transitivity": cut.transitivity,
        "precision": cut.precision,
        "coverage": chosen.coverage if chosen else 0.0,
        "num_candidates": len(mined.edges),
        "num_above": int(above.sum()),
        "scores": histogram({"below": csls[~above], "above": csls[above]}).as_json(),
        "curve": [
            {
                "threshold": point.threshold,
                "num_links": point.num_edges,
                "transitivity": point.transitivity,
                "precision": point.precision,
                "coverage": point.coverage,
            }
            for point in cut.curve
        ],
    }


def _links(mined: MinedPairs) -> dict[str, Any]:
    """Links inside styles, and how many of them may not become pairs."""
    inside, left_out = len(mined.styles.edges), dict(mined.selection.left_out)
    valid = inside - sum(left_out.values())
    return {
        "in_styles": inside,
        "left_out": left_out,
        "valid_share": valid / inside if inside else 0.0,
    }


def _pairs(mined: MinedPairs) -> dict[str, Any]:
    pairs = mined.selection.pairs
    style = np.fromiter((p.style_similarity for p in pairs), dtype=np.float32)
    content = np.fromiter((p.content_similarity for p in pairs), dtype=np.float32)
    num_refs = np.fromiter((len(p.refs) for p in pairs), dtype=np.int64)
    return {
        "refs_mean": float(num_refs.mean()) if len(num_refs) else 0.0,
        "refs": np.bincount(num_refs)[1:].tolist(),
        "content_ceiling": mined.selection.content_ceiling,
        "style_similarity": _distribution(style),
        "content_similarity": _distribution(content),
    }


def _distribution(values: NDArray[np.float32]) -> dict[str, Any]:
    return {
        "quantiles": quantiles(values),
        "histogram": histogram({"pairs": values}).as_json(),
    }


def _styles(mined: MinedPairs) -> dict[str, Any]:
    sizes = np.array([len(members) for members in mined.styles.members], dtype=np.int64)
    return {
        "num_found": len(sizes),
        "with_pairs": len(mined.splits),
        "median_size": float(np.median(sizes)) if len(sizes) else 0.0,
        "largest": int(sizes.max(initial=0)),
        "sizes": histogram({"styles": sizes}, num_bins=24, low=0.0).as_json(),
    }


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


def _diversity(source: ReportSource, uses: NDArray[np.int64]) -> dict[str, Any]:
    mined, seed = source.mined, source.config.seed
    members = mined.styles.members
    shown = np.minimum(uses, _MAX_USES_SHOWN)
    most = int(shown.max(initial=0))
    return {
        "image_use_gini": gini(uses),
        "image_uses": histogram(
            {"images": shown}, num_bins=most + 1, low=-0.5, high=most + 0.5
        ).as_json(),
        "content_distance": {
            "pairs": _pair_distance(mined, seed),
            "same_style": same_style_distance(mined.content, members, seed),
        },
        "vendi": asdict(style_vendi(mined.content, members, seed)),
    }


def _pair_distance(mined: MinedPairs, seed: int) -> float:
    """Mean content distance (1 - cosine) of target and reference, over pairs drawn evenly."""
    pairs = mined.selection.pairs
    drawn = np.sort(np.random.default_rng(seed).permutation(len(pairs))[:_SAMPLED_REFS])
    ends = [(pairs[n].target, ref) for n in drawn.tolist() for ref in pairs[n].refs]
    if not ends:
        return 0.0
    first, second = np.array(ends, dtype=np.int64).T
    return float(1 - pair_cosines(mined.content, first, second).mean())


def _caps(source: ReportSource, uses: NDArray[np.int64]) -> list[dict[str, Any]]:
    config, mined = source.config.selection, source.mined
    styles = np.fromiter((pair.style for pair in mined.selection.pairs), dtype=np.int64)
    pairs_of_style = np.bincount(styles, minlength=len(mined.names))
    return [
        {
            "name": "pairs that use an image",
            "limit": str(config.max_uses_per_image),
            "num_reached": int((uses >= config.max_uses_per_image).sum()),
            "num_all": int((uses > 0).sum()),
            "unit": "images",
        },
        {
            "name": "pairs of a style",
            "limit": str(config.max_pairs_per_style),
            "num_reached": int((pairs_of_style >= config.max_pairs_per_style).sum()),
            "num_all": int((pairs_of_style > 0).sum()),
            "unit": "styles",
        },
    ]
