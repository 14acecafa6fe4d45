"""The promotion gate: which bounds a report keeps, against its null and against the champion.

Every axis must pass. A value that is missing or no number fails its check: a report cannot pass by
leaving something out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from jobs.evaluation.conditions import NULL, REAL, WRONG_REFS
from jobs.evaluation.config import GateConfig
from jobs.evaluation.report_values import (
    Report,
    look_up,
    metric_value,
    minus,
    number,
    raised,
    ratio,
    share_gone,
    times,
    worst_decile,
)
from jobs.evaluation.schema import REPORT_SCHEMA


@dataclass(frozen=True, slots=True)
class GateCheck:
    """One comparison. `value` and `bound` are None where the report lacks them."""

    name: str
    axis: str
    value: float | None
    bound: float | None
    passed: bool
    reason: str

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


@dataclass(frozen=True, slots=True)
class GateDecision:
    """Whether a predictor may become champion, with every check behind it."""

    passed: bool
    checks: list[GateCheck]

    @property
    def failed(self) -> list[GateCheck]:
        """The checks that refuse."""
        return [check for check in self.checks if not check.passed]


def decide(
    report: Report, config: GateConfig, champion_report: Report | None = None
) -> GateDecision:
    """Judge a report of `run_evaluation`.

    Args:
        report: The candidate's report.json.
        config: The bounds.
        champion_report: The champion's report.json; None when there is no champion yet.
    """
    checks = [
        _schema_check(report),
        _oracle_check(report),
        _held_out_check(report),
        _num_styles(report, config),
    ]
    for condition in config.conditions:
        checks += _style(report, config, condition)
        checks += _loss(report, config, condition)
        checks += _prompt(report, config, condition)
        checks += _leakage(report, config, condition)
        checks += _quality(report, config, condition)
        checks += _copying(report, config, condition)
        checks += _robustness(report, config, condition)
    checks += _closed(report, config)
    if champion_report is not None:
        checks.append(_comparable(report, config, champion_report))
        for condition in config.conditions:
            checks += _against_champion(report, config, champion_report, condition)
    return GateDecision(passed=all(check.passed for check in checks), checks=checks)


def gated_style_metrics(report: Report, config: GateConfig) -> tuple[str, ...]:
    """The style distances that decide: to the oracle where there is one, else to references."""
    has_oracle = bool(look_up(report, "held_out", "has_oracle"))
    return config.style_metrics if has_oracle else config.reference_style_metrics


def _schema_check(report: Report) -> GateCheck:
    found = report.get("schema")
    passed = found == REPORT_SCHEMA
    reason = f"schema is {found!r}, {'as' if passed else 'not'} {REPORT_SCHEMA!r}"
    return GateCheck("report/schema", "report", None, None, passed, reason)


def _oracle_check(report: Report) -> GateCheck:
    """Which style distances decide must be said, not guessed."""
    found = look_up(report, "held_out", "has_oracle")
    passed = isinstance(found, bool)
    reason = f"oracle images: {found}" if passed else "the report does not say if oracles exist"
    return GateCheck("report/has_oracle", "report", None, None, passed, reason)


def _held_out_check(report: Report) -> GateCheck:
    """Styles are held out only if the training was on the pairs whose split keeps them apart."""
    found = look_up(report, "held_out", "pairs_of_training")
    if found is True:
        reason = "the pairs are those of the training, which their split kept from these styles"
    elif not isinstance(found, bool):
        reason = "the report does not say if the pairs are those of the training"
    elif look_up(report, "predictor", "provenance", "pairs_hash") is None:
        reason = (
            "the predictor's provenance names no pairs: its training may have seen these styles"
        )
    else:
        reason = (
            "the training was on other pairs and may have seen these styles; evaluate on its own"
        )
    return GateCheck("report/pairs_of_training", "report", None, None, found is True, reason)


def _num_styles(report: Report, config: GateConfig) -> GateCheck:
    found = number(look_up(report, "num_styles"))
    return _at_least(
        "report/num_styles", "report", found, config.min_num_styles, "held-out styles"
    )  # fmt: skip


def _style(report: Report, config: GateConfig, condition: str) -> Iterator[GateCheck]:
    for metric in gated_style_metrics(report, config):
        name = f"{condition}/{metric}"
        own, null = (metric_value(report, c, metric) for c in (condition, NULL))
        yield _at_least(
            f"{name}/gain", "style", share_gone(null, own), config.min_style_gain,
            "of the null's distance gone",
        )  # fmt: skip
        for other in (NULL, WRONG_REFS) if config.require_separate_intervals else ():
            yield _below(
                f"{name}/apart_from_{other}",
                "style",
                metric_value(report, condition, metric, "hi"),
                metric_value(report, other, metric, "lo"),
                f"upper interval end against the lower one of {other}",
            )


def _loss(report: Report, config: GateConfig, condition: str) -> Iterator[GateCheck]:
    for other in (NULL, WRONG_REFS) if config.require_separate_intervals else ():
        yield _above(
            f"{condition}/loss/apart_from_{other}",
            "loss",
            number(look_up(report, "loss_high_sigma", f"{other}_minus_{condition}", "lo")),
            0.0,
            f"at the lower interval end of the flow loss of {other} minus its own",
        )


def _closed(report: Report, config: GateConfig) -> Iterator[GateCheck]:
    for condition, parts in config.min_closed.items():
        for part, share in parts.items():
            yield _at_least(
                f"{condition}/closed/{part}", "style",
                number(look_up(report, "closed", part, condition)), share,
                "of the way from the null to the per-style LoRA closed",
            )  # fmt: skip


def _prompt(report: Report, config: GateConfig, condition: str) -> Iterator[GateCheck]:
    own, null = (metric_value(report, c, "prompt_accuracy") for c in (condition, NULL))
    yield _at_least(
        f"{condition}/prompt_accuracy", "prompt", own, config.min_prompt_accuracy, "contents read"
    )
    yield _at_most(
        f"{condition}/prompt_accuracy/drop", "prompt", minus(null, own), config.max_prompt_drop,
        "below the null",
    )  # fmt: skip


def _leakage(report: Report, config: GateConfig, condition: str) -> Iterator[GateCheck]:
    excess = number(look_up(report, "leakage", condition, "excess", "mean"))
    yield _at_most(
        f"{condition}/leakage", "leakage", excess, config.max_leakage_excess,
        "of samples show a reference's content, over the null",
    )  # fmt: skip
    if config.max_leakage is not None:
        share = number(look_up(report, "leakage", condition, "share", "mean"))
        yield _at_most(
            f"{condition}/leakage/share", "leakage", share, config.max_leakage,
            "of samples show a reference's content",
        )  # fmt: skip


def _quality(report: Report, config: GateConfig, condition: str) -> Iterator[GateCheck]:
    for metric in ("sharpness_error", "contrast_error"):
        own, null = (metric_value(report, c, metric) for c in (condition, NULL))
        yield _at_most(
            f"{condition}/{metric}", "quality", minus(own, null), config.max_quality_loss,
            "above the null",
        )  # fmt: skip
    yield _at_most(
        f"{condition}/kid",
        "quality",
        metric_value(report, condition, "kid"),
        raised(metric_value(report, NULL, "kid", "hi"), config.max_quality_loss),
        "kernel distance to real pictures",
    )


def _copying(report: Report, config: GateConfig, condition: str) -> Iterator[GateCheck]:
    own, real = (metric_value(report, c, "copied") for c in (condition, REAL))
    yield _at_most(
        f"{condition}/copied", "copying", minus(own, real), config.max_copy_excess,
        "of samples repeat a reference, over real pictures",
    )  # fmt: skip


def _robustness(report: Report, config: GateConfig, condition: str) -> Iterator[GateCheck]:
    yield _at_most(
        f"{condition}/failed", "robustness", metric_value(report, condition, "failed"),
        config.max_failed, "of samples flat or broken",
    )  # fmt: skip
    for metric in gated_style_metrics(report, config):
        own, null = (worst_decile(report, c, metric) for c in (condition, NULL))
        yield _at_most(
            f"{condition}/{metric}/worst_decile", "robustness", own, null,
            "style distance of the worst tenth of styles, against the null's",
        )  # fmt: skip


def _comparable(report: Report, config: GateConfig, champion: Report) -> GateCheck:
    hashes = [look_up(side, "held_out", "content_hash") for side in (report, champion)]
    same = hashes[0] is not None and hashes[0] == hashes[1]
    if same:
        reason = "champion judged on the same held-out styles"
    elif config.require_same_held_out:
        reason = "champion judged on other held-out styles; evaluate it on these pairs"
    else:
        reason = "champion judged on other held-out styles; its figures are scaled by the nulls"
    passed = same or not config.require_same_held_out
    return GateCheck("champion/held_out", "champion", None, None, passed, reason)


def _against_champion(
    report: Report, config: GateConfig, champion: Report, condition: str
) -> Iterator[GateCheck]:
    for metric in gated_style_metrics(report, config):
        scale = ratio(metric_value(report, NULL, metric), metric_value(champion, NULL, metric))
        yield _at_most(
            f"champion/{condition}/{metric}",
            "style",
            minus(
                metric_value(report, condition, metric),
                times(metric_value(champion, condition, metric), scale),
            ),
            config.max_style_loss,
            "above the champion",
        )
        yield _at_most(
            f"champion/{condition}/{metric}/worst_decile",
            "robustness",
            minus(
                worst_decile(report, condition, metric),
                times(worst_decile(champion, condition, metric), scale),
            ),
            config.max_worst_decile_loss,
            "above the champion's worst tenth of styles",
        )
    yield _at_most(
        f"champion/{condition}/prompt_accuracy",
        "prompt",
        minus(
            metric_value(champion, condition, "prompt_accuracy"),
            metric_value(report, condition, "prompt_accuracy"),
        ),
        config.max_prompt_drop,
        "below the champion",
    )
    yield _at_most(
        f"champion/{condition}/sharpness_error",
        "quality",
        minus(
            metric_value(report, condition, "sharpness_error"),
            metric_value(champion, condition, "sharpness_error"),
        ),
        config.max_quality_loss,
        "above the champion",
    )
    yield _at_most(
        f"champion/{condition}/kid",
        "quality",
        metric_value(report, condition, "kid"),
        raised(metric_value(champion, condition, "kid", "hi"), config.max_quality_loss),
        "kernel distance, against the champion's upper interval end",
    )


def _at_most(
    name: str, axis: str, value: float | None, bound: float | None, what: str
) -> GateCheck:
    passed = value is not None and bound is not None and value <= bound
    return _check(name, axis, value, bound, passed, what, "at most")


def _at_least(
    name: str, axis: str, value: float | None, bound: float | None, what: str
) -> GateCheck:
    passed = value is not None and bound is not None and value >= bound
    return _check(name, axis, value, bound, passed, what, "at least")


def _below(name: str, axis: str, value: float | None, bound: float | None, what: str) -> GateCheck:
    passed = value is not None and bound is not None and value < bound
    return _check(name, axis, value, bound, passed, what, "below")


def _above(name: str, axis: str, value: float | None, bound: float, what: str) -> GateCheck:
    passed = value is not None and value > bound
    return _check(name, axis, value, bound, passed, what, "above")


def _check(
    name: str,
    axis: str,
    value: float | None,
    bound: float | None,
    passed: bool,
    what: str,
    relation: str,
) -> GateCheck:
    if value is None or bound is None:
        reason = f"the report lacks {'the value' if value is None else 'what it is compared with'}"
    else:
        verb = "is" if passed else "should be"
        reason = f"{value:.4g} {what}, {verb} {relation} {bound:.4g}"
    return GateCheck(name, axis, value, bound, passed, reason)
