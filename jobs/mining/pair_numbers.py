"""The report's numbers about what was mined: the cut, links, pairs, styles and their diversity.

Shapes: M images that were searched, P pairs.
"""

from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobs.mining.config import SelectionConfig
from jobs.mining.diversity import gini, pair_cosines, same_style_distance, style_vendi
from jobs.mining.histogram import histogram, quantiles
from jobs.mining.mined import MinedPairs
from jobs.mining.selection import Selection

_SAMPLED_PAIRS = 20_000
_MAX_USES_SHOWN = 16


def image_uses(mined: MinedPairs) -> NDArray[np.int64]:
    """(M,) pairs that use each image, as target or reference."""
    images = (i for pair in mined.selection.pairs for i in (pair.target, *pair.refs))
    return np.bincount(np.fromiter(images, dtype=np.int64), minlength=len(mined.rows))


def cut_numbers(mined: MinedPairs) -> dict[str, Any]:
    """The cut, and what other cuts would have given."""
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


def link_numbers(mined: MinedPairs) -> dict[str, Any]:
    """Links inside styles, and how many of them may not become pairs."""
    inside, left_out = len(mined.styles.edges), dict(mined.selection.left_out)
    valid = inside - sum(left_out.values())
    return {
        "in_styles": inside,
        "left_out": left_out,
        "valid_share": valid / inside if inside else 0.0,
    }


def pair_numbers(mined: MinedPairs) -> dict[str, Any]:
    """Numbers of references, and how alike the images of a pair are."""
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


def style_numbers(mined: MinedPairs) -> dict[str, Any]:
    """How many styles, and of which sizes."""
    sizes = np.array([len(members) for members in mined.styles.members], dtype=np.int64)
    return {
        "num_found": len(sizes),
        "with_pairs": len(mined.splits),
        "median_size": float(np.median(sizes)) if len(sizes) else 0.0,
        "largest": int(sizes.max(initial=0)),
        "sizes": histogram({"styles": sizes}, num_bins=24, low=0.0).as_json(),
    }


def diversity_numbers(mined: MinedPairs, uses: NDArray[np.int64], seed: int) -> dict[str, Any]:
    """How evenly images are used, and how unlike in content those of a style are."""
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
    drawn = np.sort(np.random.default_rng(seed).permutation(len(pairs))[:_SAMPLED_PAIRS])
    ends = [(pairs[n].target, ref) for n in drawn.tolist() for ref in pairs[n].refs]
    if not ends:
        return 0.0
    first, second = np.array(ends, dtype=np.int64).T
    return float(1 - pair_cosines(mined.content, first, second).mean())


def cap_numbers(
    mined: MinedPairs, uses: NDArray[np.int64], config: SelectionConfig
) -> list[dict[str, Any]]:
    """Caps, and how much reached them."""
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
        _left_out("pairs in all", str(config.max_pairs or "none"), "total", mined.selection),
        _left_out(
            "share of pairs that show a source",
            f"{100 * config.max_source_share:g} %",
            "source",
            mined.selection,
        ),
        _left_out("splits that a style lies in", "1", "split_conflict", mined.selection),
    ]


def _left_out(name: str, limit: str, reason: str, selection: Selection) -> dict[str, Any]:
    num_left_out = selection.capped[reason]
    return {
        "name": name,
        "limit": limit,
        "num_reached": num_left_out,
        "num_all": len(selection.pairs) + sum(selection.capped.values()),
        "unit": "pairs left out",
    }
