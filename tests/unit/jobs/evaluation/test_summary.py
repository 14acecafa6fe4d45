import pytest
import torch

from jobs.evaluation import report_view
from jobs.evaluation.chunk import ChunkResult
from jobs.evaluation.config import EvaluationConfig
from jobs.evaluation.summary import Summary

CONFIG = EvaluationConfig(style_lora_steps=(10, 20), bootstrap_num_samples=100)
DISTANCES = {
    "null": 0.5,
    "wrong_refs": 0.55,
    "i2l_1": 0.4,
    "i2l_4": 0.3,
    "style_lora@10": 0.35,
    "style_lora@20": 0.1,
    "real": 0.0,
}
TRAINED = ("a", "b")


def chunk(styles: tuple[str, ...], offset: float = 0.0) -> ChunkResult:
    """Every style at the same distances; the second sample is `offset` further off."""
    result = ChunkResult(reader="classifier")
    for condition, distance in DISTANCES.items():
        names = [s for s in styles if s in TRAINED or "@" not in condition]
        column = [distance, distance + offset]
        metrics = ["style_references", "failed", "copied", "sharpness_error", "contrast_error"]
        metrics += [f"style_{p}" for p in ("background", "figure", "outline", "texture", "overall")]
        result.values[condition] = {m: {s: list(column) for s in names} for m in metrics}
        result.values[condition] |= {
            "prompt_accuracy": {s: [1.0, 0.0] for s in names},
            "leakage_refs_1": {s: [0.0, 0.0] for s in names},
            "leakage_refs_4": {s: [0.0, float(condition == "i2l_4")] for s in names},
        }
        result.losses[condition] = {s: [distance] for s in names}
        generator = torch.Generator().manual_seed(0)
        result.features[condition] = torch.randn(2 * len(names), 8, generator=generator)
        result.feature_styles[condition] = [s for s in names for _ in range(2)]
        if "@" in condition:
            steps = float(condition.partition("@")[2])
            result.seconds[condition] = dict.fromkeys(names, steps)
        elif condition.startswith("i2l"):
            result.seconds[condition] = dict.fromkeys(names, 0.1)
    return result


@pytest.fixture(scope="module")
def figures() -> dict:
    return Summary([chunk(("a", "c")), chunk(("b", "d"))], CONFIG, has_oracle=True).figures()


def test_chunks_are_joined(figures):
    assert figures["metrics"]["i2l_4"]["style_overall"]["n"] == 8
    assert figures["metrics"]["style_lora"]["style_overall"]["num_styles"] == 2
    assert "style_lora@10" not in figures["metrics"]


def test_best_budget_stands_for_the_style_lora(figures):
    assert figures["style_lora"]["best_num_steps"] == 20
    assert figures["metrics"]["style_lora"]["style_figure"]["mean"] == pytest.approx(0.1)


def test_closed_is_the_share_of_the_way_from_null_to_style_lora(figures):
    for part in ("background", "figure", "outline", "texture", "overall", "references"):
        assert figures["closed"][part]["i2l_1"] == pytest.approx(0.25)
        assert figures["closed"][part]["i2l_4"] == pytest.approx(0.5)


def test_leakage_is_counted_against_the_null_with_the_same_references(figures):
    assert figures["leakage"]["i2l_1"]["excess"]["mean"] == 0.0
    assert figures["leakage"]["i2l_4"]["excess"]["mean"] == pytest.approx(0.5)
    assert figures["metrics"]["i2l_4"]["leakage"]["mean"] == pytest.approx(0.5)


def test_training_time_to_the_same_distance(figures):
    match = figures["speed"]["match"]["i2l_4"]
    assert match["reached"]
    assert match["seconds"] == pytest.approx(12.0)
    assert match["ratio"] == pytest.approx(120.0)


def test_loss_gain_over_wrong_references(figures):
    gain = figures["loss_high_sigma"]["wrong_refs_minus_i2l_4"]
    assert gain["mean"] == pytest.approx(0.25)


def test_worst_decile_is_of_styles(figures):
    mixed = Summary([chunk(("a",)), chunk(("b",), offset=0.4)], CONFIG, has_oracle=True).figures()
    worst = mixed["robustness"]["i2l_4"]["worst_decile"]["style_overall"]
    assert worst == pytest.approx(0.5)
    assert figures["robustness"]["i2l_4"]["worst_decile"]["style_overall"] == pytest.approx(0.3)


def test_nan_sample_makes_the_metric_missing():
    broken = chunk(("a", "b"))
    broken.values["i2l_4"]["style_overall"]["a"][0] = float("nan")
    found = Summary([broken], CONFIG, has_oracle=True).figures()
    assert found["metrics"]["i2l_4"]["style_overall"]["mean"] is None
    assert found["robustness"]["i2l_4"]["worst_decile"]["style_overall"] is None


def test_without_trained_loras_nothing_is_closed():
    bare = chunk(("c", "d"))
    for name in ("style_lora@10", "style_lora@20"):
        del bare.values[name], bare.losses[name], bare.features[name], bare.seconds[name]
    found = Summary([bare], CONFIG, has_oracle=False).figures()
    assert found["closed"] == {}
    assert "match" not in found["speed"]
    assert "style_lora" not in found["metrics"]


UNSEEN = "that training did not see"
WARM = "that training did not see, though the predictor that it started from may have"
OTHER_PAIRS = "that training may have seen, since it was not on these pairs"


@pytest.mark.parametrize(
    ("pairs_of_training", "origin", "claim"),
    [
        (True, {"pairs_hash": "p1", "init_hash": None}, UNSEEN),
        (True, {"pairs_hash": "p1", "init_hash": "w", "init_pairs": ["p1"]}, UNSEEN),
        (True, {"pairs_hash": "p1", "init_hash": "w", "init_pairs": ["p0", "p1"]}, WARM),
        (True, {"pairs_hash": "p1", "init_hash": "w"}, WARM),
        (False, {"pairs_hash": "p2"}, OTHER_PAIRS),
        (False, None, OTHER_PAIRS),
    ],
)
def test_page_calls_styles_unseen_only_where_that_is_known(pairs_of_training, origin, claim):
    held_out = {"pairs_of_training": pairs_of_training}
    report = {"held_out": held_out, "predictor": {"provenance": origin}}
    assert report_view.held_out_claim(report) == claim


def test_page_words_follow_the_figures(figures):
    report = figures | {"num_refs": [1, 4], "held_out": {"has_oracle": True}}
    values = {tile.title: tile.value for tile in report_view.tiles(report)}
    assert values["Style distance gone"] == "40 %"
    assert values["Closed to a trained LoRA"] == "50 %"
    assert values["Leakage"] == "+50.0 %"
    assert "120× as long" in report_view.match_sentence(report, "i2l_4")
    assert "wrong refs minus i2L, 4 refs: 0.250 [" in report_view.loss_panel(report).note
    bars = {bar.condition: bar for bar in report_view.style_panels(report)[0].bars}
    assert bars["null"].width == pytest.approx(5 / 3 * bars["i2l_4"].width)
