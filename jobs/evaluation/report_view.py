"""Turns report.json into what the page shows: tiles, bars and tables, all as text and percent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jobs.evaluation.conditions import NULL, REAL, STYLE_LORA, WRONG_REFS

Report = Mapping[str, Any]
MISSING = "–"

METRIC_TITLES = {
    "style_background": "Background",
    "style_figure": "Figure",
    "style_outline": "Outline",
    "style_texture": "Texture",
    "style_overall": "Overall (8×8 pooled)",
    "style_references": "Patches, to references",
}
TABLE_METRICS = {
    "prompt_accuracy": ("Prompt read", "share, higher is better"),
    "leakage": ("Reference content shown", "share"),
    "sharpness_error": ("Sharpness error", "|log ratio|, lower is better"),
    "contrast_error": ("Contrast error", "|log ratio|, lower is better"),
    "kid": ("KID on VAE latents", "lower is better"),
    "copied": ("Copies of a reference", "share"),
    "failed": ("Failed samples", "share"),
}


@dataclass(frozen=True, slots=True)
class Tile:
    """One headline figure."""

    title: str
    value: str
    note: str


@dataclass(frozen=True, slots=True)
class Bar:
    """A mean with its interval on a shared scale; places are percent of the track."""

    condition: str
    label: str
    text: str
    width: float
    lo: float
    hi: float


@dataclass(frozen=True, slots=True)
class Panel:
    """Bars of one metric, with the closed share where the report has one."""

    title: str
    bars: list[Bar]
    note: str


def condition_label(condition: str) -> str:
    """What the page calls a condition."""
    names = {
        NULL: "no LoRA",
        WRONG_REFS: "wrong refs",
        STYLE_LORA: "per-style LoRA",
        REAL: "real pictures",
        "oracle": "oracle",
        "references": "references",
    }
    if condition.startswith("i2l_"):
        number = condition.removeprefix("i2l_")
        return f"i2L, {number} ref" + ("" if number == "1" else "s")
    return names.get(condition, condition)


def tiles(report: Report) -> list[Tile]:
    """The figures that matter most, of the condition with the most references."""
    best = f"i2l_{max(report['num_refs'])}"
    metrics = report["metrics"]
    part = "overall" if report["held_out"]["has_oracle"] else "references"
    gone = _share_gone(metrics, best, f"style_{part}")
    closed = report["closed"].get(part, {}).get(best)
    excess = report["leakage"][best]["excess"]["mean"]
    seconds = report["speed"]["seconds"][best]
    return [
        Tile("Style distance gone", _percent(gone), f"of the distance without LoRA, {part}"),
        Tile(
            "Closed to a trained LoRA",
            _percent(closed),
            "of the way from no LoRA to one trained per style",
        ),
        Tile(
            "Prompts read",
            _percent(metrics[best]["prompt_accuracy"]["mean"]),
            f"without LoRA {_percent(metrics[NULL]['prompt_accuracy']['mean'])}",
        ),
        Tile("Leakage", _signed_percent(excess), "of samples, over no LoRA"),
        Tile("Time to a style", _duration(seconds), match_sentence(report, best)),
    ]


def held_out_claim(report: Report) -> str:
    """What is known of whether the training saw the styles, to follow their number."""
    if not report["held_out"]["pairs_of_training"]:
        return "that training may have seen, since it was not on these pairs"
    origin = report["predictor"]["provenance"]
    if origin.get("init_hash") and origin.get("init_pairs") != [origin["pairs_hash"]]:
        return "that training did not see, though the predictor that it started from may have"
    return "that training did not see"


def style_panels(report: Report) -> list[Panel]:
    """Style distance by part."""
    panels = []
    for metric, title in METRIC_TITLES.items():
        rows = {
            name: by_metric[metric]
            for name, by_metric in report["metrics"].items()
            if metric in by_metric and name != REAL
        }
        if rows:
            panels.append(Panel(title, _bars(rows), _closed_note(report, metric)))
    return panels


def loss_panel(report: Report) -> Panel:
    """Flow-matching loss at high noise; the scale starts at zero."""
    rows = {
        name: estimate
        for name, estimate in report["loss_high_sigma"].items()
        if name in report["metrics"]
    }
    gains = [
        f"{condition_label(other)} minus {condition_label(name)}: "
        + interval_text(report["loss_high_sigma"].get(f"{other}_minus_{name}"))
        for name in (f"i2l_{num_refs}" for num_refs in report["num_refs"])
        for other in (NULL, WRONG_REFS)
    ]
    return Panel("Loss on held-out targets", _bars(rows), "; ".join(gains))


def metric_rows(report: Report) -> list[tuple[str, str, list[tuple[str, str]]]]:
    """Title, unit and mean with interval a condition, for metrics that are no style distance."""
    conditions = list(report["metrics"])
    return [
        (title, unit, [_mean_and_interval(report["metrics"][c].get(metric)) for c in conditions])
        for metric, (title, unit) in TABLE_METRICS.items()
    ]


def worst_rows(report: Report) -> list[tuple[str, list[str]]]:
    """Mean style distance of the worst tenth of styles, one row a metric."""
    robustness = report["robustness"]
    return [
        (title, [_number(robustness[name]["worst_decile"].get(metric)) for name in robustness])
        for metric, title in METRIC_TITLES.items()
        if any(metric in robustness[name]["worst_decile"] for name in robustness)
    ]


def match_sentence(report: Report, condition: str) -> str:
    """How the trained LoRA compares in time."""
    match = (report["speed"].get("match") or {}).get(condition)
    if match is None:
        if report["style_lora"]:
            return "no nearer to the style than the backbone without LoRA"
        return "no LoRA was trained per style to compare with"
    if match["reached"]:
        return (
            f"training to the same distance takes {_duration(match['seconds'])}, "
            f"{match['ratio']:.0f}× as long"
        )
    longest = report["speed"]["style_lora_curve"][-1]
    return (
        f"training does not reach it in {longest['num_steps']} steps, "
        f"{_duration(longest['seconds'])}: over {match['ratio']:.0f}×"
    )


def interval_text(estimate: Mapping[str, Any] | None) -> str:
    """`mean [lo, hi]`."""
    mean, interval = _mean_and_interval(estimate)
    return f"{mean} {interval}".strip()


def budget_rows(report: Report, metrics: Sequence[str]) -> list[list[str]]:
    """Steps, seconds and distances of the per-style LoRA."""
    rows = report["style_lora"].get("budgets", [])
    return [
        [str(row["num_steps"]), _duration(row["seconds"]), *(_number(row[m]) for m in metrics)]
        for row in rows
    ]


def _mean_and_interval(estimate: Mapping[str, Any] | None) -> tuple[str, str]:
    if not estimate or estimate.get("mean") is None:
        return MISSING, ""
    mean, lo, hi = (_number(estimate[key]) for key in ("mean", "lo", "hi"))
    return mean, f"[{lo}, {hi}]"


def _bars(rows: Mapping[str, Mapping[str, Any]]) -> list[Bar]:
    known = [row for row in rows.values() if row.get("mean") is not None]
    top = max((row["hi"] for row in known), default=0.0) * 1.05 or 1.0
    bars = []
    for name, row in rows.items():
        places = [_place(row.get(key), top) for key in ("mean", "lo", "hi")]
        bars.append(Bar(name, condition_label(name), interval_text(row), *places))
    return bars


def _place(value: float | None, top: float) -> float:
    return 0.0 if value is None else max(0.0, min(100.0, 100.0 * value / top))


def _closed_note(report: Report, metric: str) -> str:
    row = report["closed"].get(metric.removeprefix("style_"), {})
    parts = [f"{condition_label(name)} {_percent(value)}" for name, value in row.items()]
    return "closed to the per-style LoRA: " + ", ".join(parts) if parts else ""


def _share_gone(metrics: Mapping[str, Any], condition: str, metric: str) -> float | None:
    own, null = (metrics[name].get(metric, {}).get("mean") for name in (condition, NULL))
    return None if own is None or not null else 1.0 - own / null


def _percent(value: float | None) -> str:
    return MISSING if value is None else f"{round(100 * value)} %"


def _signed_percent(value: float | None) -> str:
    return MISSING if value is None else f"{round(100 * value, 1) + 0.0:+.1f} %"


def _number(value: float | None) -> str:
    if value is None:
        return MISSING
    return f"{value:.0f}" if value == 0 else f"{value:.3f}"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return MISSING
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def labels(conditions: Iterable[str]) -> list[str]:
    """Labels of several conditions."""
    return [condition_label(name) for name in conditions]
