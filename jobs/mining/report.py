"""The mining report: ``report.json`` for programs and one self-contained page for people."""

import base64
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from numpy.typing import NDArray

from jobs import storage
from jobs.mining import charts
from jobs.mining.captions import CaptionContent
from jobs.mining.config import MiningConfig
from jobs.mining.examples import (
    example_images,
    link_groups,
    shown_pairs,
    shown_styles,
    support_of,
)
from jobs.mining.features import Samples
from jobs.mining.mined import MinedPairs
from jobs.mining.result import result_hash
from jobs.mining.spool import ImageSpool
from jobs.provenance import git_sha

REPORT_SCHEMA = "i2l.mining-report/1"
THUMBNAIL_SIDE = 72
_TEMPLATES = Path(__file__).parent / "templates"
_MAX_DAMAGED_SHARDS = 20
_SHARD_DAMAGE = ("truncated_shard", "corrupt_header", "non_adjacent_key")

DROP_TEXTS = {
    "corrupt_image": "cannot be decoded",
    "animated": "has several frames",
    "too_many_pixels": "over the pixel limit",
    "too_small": "shorter side under the limit",
    "extreme_aspect": "too long and narrow",
    "no_image": "no image file in the sample",
    "no_caption": "no caption",
    "truncated_shard": "the shard ends inside the sample",
    "corrupt_header": "damaged tar header",
    "member_too_large": "a file over the size limit",
    "non_adjacent_key": "the sample's files are scattered over the shard",
    "opt_out": "its owner opted out",
    "licence_not_allowed": "licence not on the list",
    "low_aesthetic": "aesthetic score under the limit or unknown",
    "watermark": "watermark probability over the limit or unknown",
    "nsfw": "probability of unsafe content over the limit or unknown",
    "duplicate_file": "the same file as another sample",
    "duplicate_picture": "the same picture as another sample",
    "near_duplicate": "nearly the same in style and content as another sample",
}


@dataclass(frozen=True, slots=True)
class _Page:
    """What the page's pictures are made from."""

    mined: MinedPairs
    captions: dict[int, CaptionContent]
    spool: ImageSpool

    def picture(self, image: int) -> dict[str, str]:
        """Data URI and caption of an image number."""
        row = int(self.mined.rows[image])
        data = base64.b64encode(self.spool.thumbnail(row, THUMBNAIL_SIDE)).decode()
        return {"src": f"data:image/jpeg;base64,{data}", "text": self.captions[row].prompt}


def example_rows(mined: MinedPairs, seed: int) -> set[int]:
    """Sample rows of the images that the report shows."""
    return {int(mined.rows[image]) for image in example_images(mined, seed)}


def write_report(
    uri: str,
    *,
    samples: Samples,
    mined: MinedPairs,
    captions: dict[int, CaptionContent],
    spool: ImageSpool,
    counts: dict[str, int],
    drops: dict[str, int],
    config: MiningConfig,
    input_hash: str,
) -> None:
    """Write ``report.json`` and ``index.html`` into the folder ``uri``."""
    summary = summarise(samples, mined, counts, drops, config, input_hash)
    text = json.dumps(summary, indent=2, sort_keys=True)
    storage.write_bytes(storage.join_uri(uri, "report.json"), text.encode())
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES), autoescape=True, trim_blocks=True
    )
    page = environment.get_template("mining_report.html.j2").render(
        summary=summary,
        drop_texts=DROP_TEXTS,
        charts=_charts(mined),
        config_json=json.dumps(summary["config"], indent=2),
        **_pictures(_Page(mined, captions, spool), config.seed),
    )
    storage.write_bytes(storage.join_uri(uri, "index.html"), page.encode())


def summarise(
    samples: Samples,
    mined: MinedPairs,
    counts: dict[str, int],
    drops: dict[str, int],
    config: MiningConfig,
    input_hash: str,
) -> dict[str, Any]:
    """The content of ``report.json``."""
    pairs, cut = mined.selection.pairs, mined.cut
    style_sizes = [len(members) for members in mined.styles.members]
    uses = Counter(i for pair in pairs for i in (pair.target, *pair.refs))
    damaged = Counter(
        samples.shard[i] for i, reason in enumerate(samples.reason) if reason in _SHARD_DAMAGE
    )
    return {
        "schema": REPORT_SCHEMA,
        "counts": counts,
        "drops": drops,
        "damaged_shards": dict(damaged.most_common(_MAX_DAMAGED_SHARDS)),
        "cut": {
            "threshold": cut.threshold,
            "transitivity": cut.transitivity,
            "num_candidates": len(mined.edges),
            "num_links": len(mined.styles.edges),
            "curve": [
                {
                    "threshold": point.threshold,
                    "num_links": point.num_edges,
                    "transitivity": point.transitivity,
                    "coverage": point.coverage,
                }
                for point in cut.curve
            ],
        },
        "links_left_out": mined.selection.left_out,
        "content_ceiling": mined.selection.content_ceiling,
        "styles": {
            "num_found": len(style_sizes),
            "median_size": float(np.median(style_sizes)) if style_sizes else 0.0,
            "largest": max(style_sizes, default=0),
        },
        "refs_per_pair": float(np.mean([len(pair.refs) for pair in pairs])) if pairs else 0.0,
        "style_similarity": _quantiles([pair.style_similarity for pair in pairs]),
        "content_similarity": _quantiles([pair.content_similarity for pair in pairs]),
        "content_distance": _content_distances(mined),
        "image_use_gini": gini([uses.get(i, 0) for i in range(len(mined.rows))]),
        "config": config.model_dump(mode="json"),
        "config_hash": result_hash(config),
        "input_hash": input_hash,
        "git_sha": git_sha(),
    }


def _quantiles(values: list[float]) -> dict[str, float]:
    if not values:
        return {}
    return {f"q{q:02d}": round(float(np.quantile(values, q / 100)), 4) for q in (5, 25, 50, 75, 95)}


def _content_distances(mined: MinedPairs) -> dict[str, float]:
    """Mean content distance (1 - cosine) in pairs, and of any two images of one style."""
    content, edges = mined.content, mined.styles.edges
    chosen = [1 - pair.content_similarity for pair in mined.selection.pairs]
    cosine = np.einsum("md,md->m", content[edges.first], content[edges.second])
    return {
        "pairs": float(np.mean(chosen)) if chosen else 0.0,
        "same_style": float(1 - cosine.mean()) if len(cosine) else 0.0,
    }


def gini(values: list[int]) -> float:
    """Gini coefficient: 0 when all images are used equally often, towards 1 when few carry all."""
    ordered = np.sort(np.asarray(values, dtype=float))
    if not len(ordered) or ordered.sum() == 0:
        return 0.0
    rank = np.arange(1, len(ordered) + 1)
    n = len(ordered)
    return float(2 * (rank * ordered).sum() / (n * ordered.sum()) - (n + 1) / n)


def _charts(mined: MinedPairs) -> dict[str, str]:
    edges, cut, pairs = mined.edges, mined.cut, mined.selection.pairs
    above = edges.csls >= cut.threshold
    curve = cut.curve
    return {
        "cut": charts.curves(
            "Closed two-step paths and images with a link, by threshold",
            [point.threshold for point in curve],
            [
                ("closed two-step paths", "line-a", [point.transitivity for point in curve]),
                ("images that keep a link", "line-b", [point.coverage for point in curve]),
            ],
            [("cut", cut.threshold)],
        ),
        "csls": charts.histogram(
            "Scores of candidate links",
            [("dropped", "bar-b", edges.csls[~above]), ("kept", "bar-a", edges.csls[above])],
            [("cut", cut.threshold)],
        ),
        "support": charts.histogram(
            "Overlap of neighbourhoods of the links above the cut",
            [("links", "bar-a", support_of(mined))],
        ),
        "style": charts.histogram(
            "Style cosine of pairs", [("pairs", "bar-a", [pair.style_similarity for pair in pairs])]
        ),
        "content": charts.histogram(
            "Largest content cosine in a pair",
            [("pairs", "bar-a", [pair.content_similarity for pair in pairs])],
            [("ceiling", mined.selection.content_ceiling)],
        ),
        "sizes": charts.histogram(
            "Images a style",
            [("styles", "bar-a", _sizes(mined))],
            num_bins=24,
        ),
    }


def _sizes(mined: MinedPairs) -> NDArray[np.int64]:
    return np.array([len(members) for members in mined.styles.members], dtype=np.int64)


def _pictures(page: _Page, seed: int) -> dict[str, Any]:
    """Pairs, links and styles with their pictures, as the template wants them."""
    mined = page.mined
    pairs = [mined.selection.pairs[number] for number in shown_pairs(mined, seed)]
    return {
        "pairs": [
            {
                "refs": [page.picture(ref) for ref in pair.refs],
                "target": page.picture(pair.target),
                "style": mined.names[pair.style],
                "split": mined.splits[mined.names[pair.style]],
                "style_similarity": pair.style_similarity,
                "content_similarity": pair.content_similarity,
            }
            for pair in pairs
        ],
        "groups": [
            {
                "title": group.title,
                "explanation": group.explanation,
                "links": [
                    {
                        "pictures": [page.picture(image) for image in link],
                        "score": f"{group.scores[n]:.3f}" if group.scores else "",
                    }
                    for n, link in enumerate(group.links)
                ],
            }
            for group in link_groups(mined)
        ],
        "styles": [
            {
                "name": mined.names[number],
                "split": mined.splits.get(mined.names[number], "no pairs"),
                "pictures": [page.picture(int(image)) for image in members],
            }
            for number, members in shown_styles(mined, seed)
        ],
    }
