"""The mining report as one self-contained page: ``report.json``'s numbers and some pictures.

All text from outside is escaped, loses what is not printable and is cut; the page holds no script
and asks for nothing from the network.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from jobs.mining import charts
from jobs.mining.charts import Line, Mark
from jobs.mining.drop_reasons import DROP_TEXTS, STEP_TEXTS
from jobs.mining.histogram import Histogram

_TEMPLATES = Path(__file__).parent / "templates"
_MAX_CHARS = 140
_LOW_PRECISION = 0.8
_SECTIONS = (
    ("pairs", "Pairs"),
    ("filters", "From images to pairs"),
    ("drops", "Dropped images"),
    ("cut", "The cut"),
    ("borderline", "Borderline links"),
    ("styles", "Styles"),
    ("diversity", "Quality"),
    ("settings", "Settings"),
)
_SCORE_TEXTS = {
    "aesthetic": "Aesthetic score",
    "watermark": "Watermark probability",
    "nsfw": "Probability of unsafe content",
}
_LEFT_OUT_TEXTS = {
    "same_head": "captions about the same thing",
    "similar_content": "too alike in content",
    "near_copy": "too alike in style",
}


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture as a data URI, and its caption."""

    src: str
    text: str


@dataclass(frozen=True, slots=True)
class ShownPair:
    """A pair with its pictures."""

    refs: Sequence[Picture]
    target: Picture
    split: str
    style_similarity: float
    content_similarity: float


@dataclass(frozen=True, slots=True)
class ShownLink:
    """A link between two pictures, and its score or why it is shown."""

    pictures: Sequence[Picture]
    score: str


@dataclass(frozen=True, slots=True)
class ShownLinks:
    """Links of one kind; ``count`` is how many there are in all."""

    title: str
    explanation: str
    count: int
    links: Sequence[ShownLink]


@dataclass(frozen=True, slots=True)
class ShownDrop:
    """A reason for dropping images, with examples: pictures, or keys where nothing decodes."""

    reason: str
    count: int
    text: str
    pictures: Sequence[Picture]
    keys: Sequence[str]


@dataclass(frozen=True, slots=True)
class ShownStyle:
    """A style with some of its pictures."""

    name: str
    split: str
    size: int
    pictures: Sequence[Picture]


@dataclass(frozen=True, slots=True)
class Gallery:
    """All pictures of the page."""

    pairs: Sequence[ShownPair] = ()
    drops: Sequence[ShownDrop] = ()
    links: Sequence[ShownLinks] = ()
    styles: Sequence[ShownStyle] = ()


def plain_text(text: str) -> str:
    """A stranger's text on one line: nothing unprintable or that turns the writing, and cut."""
    spaced = " ".join(text.split())
    clean = "".join(c if c.isprintable() else "\ufffd" for c in spaced)
    return clean if len(clean) <= _MAX_CHARS else f"{clean[: _MAX_CHARS - 1]}…"


def render_page(summary: Mapping[str, Any], gallery: Gallery) -> str:
    """The page as HTML."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["plain"] = plain_text
    return environment.get_template("mining_report.html.j2").render(
        summary=summary,
        gallery=gallery,
        sections=_SECTIONS,
        tiles=_tiles(summary),
        notices=notices(summary),
        facts=_facts(summary),
        charts=_charts(summary),
        drop_texts=DROP_TEXTS,
        step_texts=STEP_TEXTS,
        config_json=json.dumps(summary["config"], indent=2),
    )


def _tiles(summary: Mapping[str, Any]) -> list[dict[str, str]]:
    counts, precision = summary["counts"], summary["cut"]["precision"]
    tiles = [
        (f"{counts['images']:,}", "images read"),
        (f"{counts['images_kept']:,}", "images kept"),
        (f"{counts['images_used']:,}", "images in pairs"),
        (f"{summary['styles']['with_pairs']:,}", "styles with pairs"),
        (f"{counts['pairs']:,}", "pairs"),
        (f"{100 * precision:.1f} %", "pairs right, estimated"),
        (f"{summary['pairs']['refs_mean']:.1f}", "references a pair"),
        (f"{100 * summary['links']['valid_share']:.0f} %", "links valid as pairs"),
    ]
    return [{"value": value, "label": label} for value, label in tiles]


def notices(summary: Mapping[str, Any]) -> list[str]:
    """What a reader must know before trusting the pairs."""
    found = []
    skipped = [STEP_TEXTS.get(s["name"], s["name"]) for s in summary["steps"] if s["skipped"]]
    if skipped:
        found.append(f"Not checked, as the settings say: {', '.join(skipped)}.")
    precision = summary["cut"]["precision"]
    if precision < _LOW_PRECISION:
        found.append(
            f"Only {100 * precision:.0f} % of the pairs are estimated to be right: look at them "
            "before you train on them."
        )
    damaged = summary["input"]["num_damaged"]
    if damaged:
        found.append(f"{damaged:,} of {summary['input']['num_shards']:,} shards are damaged.")
    counts = summary["counts"]
    if counts["images"] and counts["images_kept"] < counts["images"] / 2:
        found.append(f"{100 - 100 * counts['images_kept'] / counts['images']:.0f} % were dropped.")
    return found


def _facts(summary: Mapping[str, Any]) -> list[dict[str, str]]:
    diversity, links = summary["diversity"], summary["links"]
    distance, vendi = diversity["content_distance"], diversity["vendi"]
    left_out = ", ".join(
        f"{_LEFT_OUT_TEXTS.get(reason, reason)}: {count:,}"
        for reason, count in links["left_out"].items()
    )
    rows = [
        (
            "Valid links",
            f"{100 * links['valid_share']:.1f} %",
            "of the links inside styles join images of different content, as a pair must. "
            f"The others: {left_out}",
        ),
        (
            "Content distance",
            f"{distance['pairs']:.3f}",
            f"1 - cosine of target and reference in the mean; {distance['same_style']:.3f} for "
            "random images of one style. Higher means that less content can leak",
        ),
        (
            "Vendi score",
            f"{vendi['mean']:.2f}",
            f"unlike contents among {vendi['num_images']} images of a style, "
            f"{vendi['random']:.2f} among random ones; {vendi['num_styles']:,} styles looked at",
        ),
        (
            "Gini of image use",
            f"{diversity['image_use_gini']:.2f}",
            "0 when all kept images are used equally often, towards 1 when few carry all",
        ),
    ]
    return [{"name": name, "value": value, "meaning": meaning} for name, value, meaning in rows]


def _charts(summary: Mapping[str, Any]) -> dict[str, Any]:
    cut, pairs, curve = summary["cut"], summary["pairs"], summary["cut"]["curve"]
    thresholds = [point["threshold"] for point in curve]
    marks = [Mark("cut", cut["threshold"])] if cut["threshold"] is not None else []
    coverage = [point["coverage"] for point in curve]
    precision = [point["precision"] for point in curve]
    return {
        "tradeoff": charts.tradeoff(
            "images that keep a link",
            coverage,
            precision,
            "a",
            [Mark("the cut", cut["coverage"], cut["precision"])] if curve else [],
        ),
        "cut": charts.curves(
            "threshold",
            thresholds,
            [
                Line("estimated precision", "a", precision),
                Line("images that keep a link", "c", coverage),
            ],
            marks,
        ),
        "csls": _bars("score (CSLS)", cut["scores"], ("b", "a"), marks),
        "sizes": _bars("images", summary["styles"]["sizes"], ("a",)),
        "uses": _bars("pairs", summary["diversity"]["image_uses"], ("a",)),
        "style": _bars("style cosine", pairs["style_similarity"]["histogram"], ("a",)),
        "content": _bars(
            "content cosine",
            pairs["content_similarity"]["histogram"],
            ("a",),
            [Mark("ceiling", pairs["content_ceiling"])],
        ),
        "scores": [_score_chart(name, score) for name, score in summary["scores"].items()],
    }


def _bars(
    label: str, data: Mapping[str, Any], classes: Sequence[str], marks: Sequence[Mark] = ()
) -> str:
    return charts.bars(label, Histogram(**data), classes, marks)


def _score_chart(name: str, score: Mapping[str, Any]) -> dict[str, str]:
    title = _SCORE_TEXTS.get(name, name)
    known, unknown = score["num_known"], score["num_unknown"]
    limit = score["threshold"]
    marks = [Mark("limit", float(limit))] if limit is not None else []
    title += f", known for {known:,} of {known + unknown:,} images"
    return {"title": title, "svg": _bars("", score["histogram"], ("a",), marks)}
