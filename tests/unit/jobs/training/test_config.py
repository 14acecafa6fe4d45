from itertools import pairwise

import pytest
from pydantic import BaseModel, ValidationError

from jobs.training.config import TrainingConfig
from jobs.training.predictor_options import PredictorOptions
from jobs.training.sigma_bands import SigmaBand


def test_learning_rate_rises_then_falls_to_its_floor() -> None:
    config = TrainingConfig(
        steps=100, warmup_fraction=0.1, learning_rate=1.0, final_lr_fraction=0.2
    )
    rates = [config.learning_rate_at(step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == pytest.approx(1.0)
    assert max(rates) == rates[10] == pytest.approx(1.0)
    assert all(later < earlier for earlier, later in pairwise(rates[10:]))
    assert rates[55] == pytest.approx(0.6)
    assert 0.2 < rates[-1] < 0.21


def test_a_single_step_has_the_full_learning_rate() -> None:
    assert TrainingConfig(steps=1).learning_rate_at(0) == pytest.approx(5e-4)


def test_sigma_bands_follow_each_other() -> None:
    colour, texture = SigmaBand(low=0.7, high=1, share=0.6), SigmaBand(low=0, high=0.5, share=0.8)
    kept = TrainingConfig(steps=11, sigma_focus=(colour,))
    assert kept.sigma_bands_at(0) == kept.sigma_bands_at(10) == (colour,)
    moving = TrainingConfig(steps=11, sigma_focus=(colour, texture))
    shares = [[band.share for band in moving.sigma_bands_at(step)] for step in (0, 5, 10)]
    assert shares[0] == pytest.approx([0.6, 0])
    assert shares[1] == pytest.approx([0.3, 0.4])
    assert shares[2] == pytest.approx([0, 0.8])
    assert TrainingConfig(steps=1).sigma_bands_at(0) == ()


def test_a_sigma_band_that_falls_is_refused() -> None:
    with pytest.raises(ValueError, match=r"low \(0.5\) must be < high \(0.2\)"):
        SigmaBand(low=0.5, high=0.2, share=1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"min_refs": 3, "max_refs": 2}, r"min_refs \(3\) must be <= max_refs \(2\)"),
        ({"max_refs": 6}, r"max_refs \(6\) must be <= predictor.max_refs \(4\)"),
        ({"styles_per_step": 1}, r"styles_per_step \(1\) must be >= num_workers"),
        (
            {"collective_timeout_s": 600},
            r"collective_timeout_s \(600\) must be > storage_patience_s \(900\)",
        ),
        ({"min_workers": 3}, r"min_workers \(3\) must be <= num_workers \(2\)"),
        ({"validation_sigmas": (0.5, 1.5)}, "must lie in"),
        ({"predictor": {"dim": 30, "num_heads": 4}}, r"num_heads \(4\) must divide dim \(30\)"),
        ({"predictor": {"rank": 4, "queries_per_factor": 3}}, "must divide rank"),
    ],
)
def test_contradictions_are_named(changes: dict, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TrainingConfig.model_validate(changes)


@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
def test_passes_hold_every_style_of_a_step_once_and_weigh_them_alike(world_size: int) -> None:
    config = TrainingConfig(styles_per_step=16, num_workers=5, gradient_accumulation_steps=3)
    num_parts = 3 * world_size
    parts = [config.slots(part, world_size) for part in range(num_parts)]
    assert [slot for part in parts for slot in part] == list(range(16))
    assert {len(part) for part in parts} <= {16 // num_parts, 16 // num_parts + 1}
    shares = [config.weight(part, world_size) / len(part) for part in parts]
    assert shares == pytest.approx([num_parts / 16] * num_parts)
    assert config.micro_styles == 2


@pytest.mark.parametrize("model", [TrainingConfig, PredictorOptions])
def test_every_field_is_described(model: type[BaseModel]) -> None:
    assert all(field.description for field in model.model_fields.values())
