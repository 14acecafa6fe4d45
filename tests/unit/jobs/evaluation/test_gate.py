import copy
import math

import pytest

from jobs.evaluation.config import GateConfig
from jobs.evaluation.gate import decide
from jobs.evaluation.schema import REPORT_SCHEMA

STYLE = ("style_overall", "style_background", "style_figure", "style_references")


def estimate(mean: float, half: float = 0.02) -> dict:
    return {"mean": mean, "lo": mean - half, "hi": mean + half, "n": 128, "num_styles": 32}


def condition(style: float, *, prompt: float = 0.9, kid: float = 0.1) -> dict:
    return {
        **{metric: estimate(style) for metric in STYLE},
        "prompt_accuracy": estimate(prompt),
        "sharpness_error": estimate(0.2),
        "contrast_error": estimate(0.2),
        "kid": estimate(kid),
        "copied": estimate(0.0, 0.0),
        "failed": estimate(0.0, 0.0),
    }


def report(**i2l_style: float) -> dict:
    """A report that passes: half of the null's style distance is gone."""
    styles = {"null": 0.4, "wrong_refs": 0.42, "i2l_1": 0.22, "i2l_4": 0.2, "real": 0.0}
    metrics = {name: condition(value) for name, value in (styles | i2l_style).items()}
    return {
        "schema": REPORT_SCHEMA,
        "num_styles": 32,
        "predictor": {"provenance": {"pairs_hash": "p1"}},
        "held_out": {"has_oracle": True, "pairs_of_training": True, "content_hash": "abc"},
        "metrics": metrics,
        "loss_high_sigma": {
            f"{other}_minus_{name}": estimate(0.1)
            for name in ("i2l_1", "i2l_4")
            for other in ("null", "wrong_refs")
        },
        "closed": {
            "overall": {"i2l_1": 0.55, "i2l_4": 0.7},
            "texture": {"i2l_1": 0.35, "i2l_4": 0.31},
        },
        "leakage": {
            name: {"share": estimate(0.02), "excess": estimate(0.0)} for name in ("i2l_1", "i2l_4")
        },
        "robustness": {
            name: {
                "worst_decile": dict.fromkeys(STYLE, metrics[name]["style_overall"]["mean"] + 0.1)
            }
            for name in styles
        },
    }


def failed_axes(candidate: dict, champion: dict | None = None, **config) -> set[str]:
    decision = decide(candidate, GateConfig(**config), champion)
    assert decision.passed == (not decision.failed)
    return {check.axis for check in decision.failed}


def test_good_report_passes_with_and_without_champion():
    assert failed_axes(report()) == set()
    assert failed_axes(report(), report()) == set()


@pytest.mark.parametrize(
    ("said", "provenance", "reason"),
    [
        (False, {"pairs_hash": "p2"}, "the training was on other pairs and may have seen"),
        (False, {}, "the predictor's provenance names no pairs"),
        (False, None, "the predictor's provenance names no pairs"),
        (None, {"pairs_hash": "p1"}, "the report does not say"),
        ("yes", {"pairs_hash": "p1"}, "the report does not say"),
    ],
)
def test_styles_that_training_may_have_seen_are_refused(said, provenance, reason):
    candidate = report() | {"predictor": {"provenance": provenance}}
    candidate["held_out"]["pairs_of_training"] = said
    (check,) = decide(candidate, GateConfig()).failed
    assert (check.axis, check.name) == ("report", "report/pairs_of_training")
    assert check.reason.startswith(reason)


def test_a_champion_judged_on_pairs_that_came_later_is_compared_with():
    champion = report()
    champion["held_out"]["pairs_of_training"] = False
    assert failed_axes(report(), champion) == set()


def test_null_as_candidate_is_refused():
    assert failed_axes(report(i2l_1=0.4, i2l_4=0.4)) == {"style"}


def test_overlapping_intervals_are_refused():
    candidate = report()
    candidate["metrics"]["i2l_4"]["style_overall"]["hi"] = 0.39
    assert failed_axes(candidate) == {"style"}
    assert failed_axes(candidate, require_separate_intervals=False) == set()


def test_a_predictor_that_ignores_its_references_is_refused():
    assert failed_axes(report(wrong_refs=0.22)) == {"style"}


@pytest.mark.parametrize("other", ["null", "wrong_refs"])
def test_loss_that_is_not_clearly_below_is_refused(other):
    candidate = report()
    candidate["loss_high_sigma"][f"{other}_minus_i2l_4"] = estimate(0.02, 0.02)
    (check,) = decide(candidate, GateConfig()).failed
    assert (check.axis, check.name) == ("loss", f"i2l_4/loss/apart_from_{other}")
    assert f"flow loss of {other} minus its own, should be above 0" in check.reason


def test_too_few_styles_are_refused():
    assert failed_axes(report(), min_num_styles=32) == set()
    assert failed_axes(report(), min_num_styles=33) == {"report"}


def test_shares_closed_are_asked_for_by_condition_and_part():
    asked = {"i2l_1": {"overall": 0.5, "texture": 0.3}, "i2l_4": {"overall": 0.65}}
    assert failed_axes(report(), min_closed=asked) == set()
    asked["i2l_4"]["texture"] = 0.32
    (check,) = decide(report(), GateConfig(min_closed=asked)).failed
    assert (check.name, check.value, check.bound) == ("i2l_4/closed/texture", 0.31, 0.32)


def test_missing_share_closed_is_refused_with_the_reason():
    candidate = report() | {"closed": {}}
    assert failed_axes(candidate) == set()
    asked = GateConfig(min_closed={"i2l_1": {"overall": 0.5}})
    (check,) = decide(candidate, asked).failed
    assert str(check) == "i2l_1/closed/overall: the report lacks the value"


def test_leaking_model_is_refused():
    candidate = report()
    candidate["leakage"]["i2l_4"]["excess"] = estimate(0.2)
    assert failed_axes(candidate) == {"leakage"}


def test_the_leaked_share_is_bounded_where_the_configuration_asks_for_it():
    candidate = report()
    candidate["leakage"]["i2l_4"]["share"] = estimate(0.04)
    assert failed_axes(candidate) == set()
    assert failed_axes(report(), max_leakage=0.03) == set()
    (check,) = decide(candidate, GateConfig(max_leakage=0.03)).failed
    assert (check.axis, check.name) == ("leakage", "i2l_4/leakage/share")
    assert check.reason == "0.04 of samples show a reference's content, should be at most 0.03"
    del candidate["leakage"]["i2l_4"]["share"]
    assert failed_axes(candidate, max_leakage=0.03) == {"leakage"}


def test_copying_model_is_refused():
    candidate = report()
    candidate["metrics"]["i2l_1"]["copied"] = estimate(0.3)
    assert failed_axes(candidate) == {"copying"}


def test_lost_prompts_are_refused():
    candidate = report()
    candidate["metrics"]["i2l_4"]["prompt_accuracy"] = estimate(0.8)
    assert failed_axes(candidate) == {"prompt"}


def test_a_backbone_that_cannot_draw_passes_nobody():
    candidate = report()
    for name in ("null", "i2l_1", "i2l_4"):
        candidate["metrics"][name]["prompt_accuracy"] = estimate(0.1)
    assert failed_axes(candidate) == {"prompt"}


@pytest.mark.parametrize("metric", ["sharpness_error", "contrast_error", "kid"])
def test_lost_quality_is_refused(metric):
    candidate = report()
    candidate["metrics"]["i2l_4"][metric] = estimate(0.5)
    assert failed_axes(candidate) == {"quality"}


def test_one_failed_sample_is_refused():
    candidate = report()
    candidate["metrics"]["i2l_1"]["failed"] = estimate(1 / 128)
    assert failed_axes(candidate) == {"robustness"}


def test_worse_than_champion_is_refused():
    assert failed_axes(report(), report(i2l_4=0.15)) == {"style", "robustness"}
    assert failed_axes(report(i2l_4=0.203), report(i2l_4=0.2)) == set()


def test_champion_of_other_styles_is_scaled_or_refused():
    champion = report(null=0.8, wrong_refs=0.84, i2l_1=0.44, i2l_4=0.4)
    champion["held_out"]["content_hash"] = "other"
    for name in champion["robustness"]:
        worst = champion["robustness"][name]["worst_decile"]
        champion["robustness"][name]["worst_decile"] = {m: v + 0.1 for m, v in worst.items()}
    assert failed_axes(report(), champion) == set()
    assert failed_axes(report(), champion, require_same_held_out=True) == {"champion"}


@pytest.mark.parametrize("value", [None, math.nan, "0.1", True])
@pytest.mark.parametrize(
    ("axis", "path"),
    [
        ("style", ("metrics", "i2l_4", "style_overall", "hi")),
        ("loss", ("loss_high_sigma", "null_minus_i2l_4", "lo")),
        ("report", ("num_styles",)),
        ("prompt", ("metrics", "i2l_4", "prompt_accuracy", "mean")),
        ("leakage", ("leakage", "i2l_1", "excess", "mean")),
        ("quality", ("metrics", "null", "kid", "hi")),
        ("copying", ("metrics", "real", "copied", "mean")),
        ("robustness", ("metrics", "i2l_1", "failed", "mean")),
        ("robustness", ("robustness", "i2l_1", "worst_decile", "style_overall")),
    ],
)
def test_what_is_no_number_fails(axis, path, value):
    candidate = report()
    place = candidate
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    assert axis in failed_axes(candidate)


@pytest.mark.parametrize(
    "section",
    ["metrics", "loss_high_sigma", "leakage", "robustness", "held_out", "schema", "num_styles"],
)
def test_missing_section_fails(section):
    candidate = report()
    del candidate[section]
    assert failed_axes(candidate)


def test_empty_report_fails_everywhere():
    axes = {"report", "style", "loss", "prompt", "leakage", "quality", "copying", "robustness"}
    assert failed_axes({}) == axes
    assert "style" in failed_axes(report(), {})


def test_without_oracle_the_distance_to_references_decides():
    candidate = report()
    candidate["held_out"]["has_oracle"] = False
    for metrics in candidate["metrics"].values():
        del metrics["style_overall"], metrics["style_background"], metrics["style_figure"]
    assert failed_axes(candidate) == set()
    candidate["metrics"]["i2l_1"]["style_references"] = estimate(0.4)
    assert failed_axes(candidate) == {"style"}


def test_check_reads_as_a_sentence_with_value_and_bound():
    candidate = report()
    candidate["leakage"]["i2l_4"]["excess"] = estimate(0.2)
    (check,) = decide(copy.deepcopy(candidate), GateConfig()).failed
    assert (check.value, check.bound) == (0.2, 0.03)
    assert "0.2" in str(check)
    assert "at most 0.03" in str(check)
