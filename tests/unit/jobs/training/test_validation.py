from collections.abc import Callable

import numpy as np
import pytest
import torch

from i2l_model.backbones import Backbone
from jobs.training.config import TrainingConfig
from jobs.training.grid import validation_grid
from jobs.training.inputs import TrainingInputs, open_loader
from jobs.training.models import build_predictor
from jobs.training.objective import StyleObjective
from jobs.training.validation import Validator

pytestmark = pytest.mark.usefixtures("process_group")


@pytest.fixture
def objective(config: TrainingConfig, backbone: Backbone) -> StyleObjective:
    return StyleObjective(build_predictor(config, backbone, None), backbone)


@pytest.fixture
def validated(inputs: TrainingInputs, backbone: Backbone) -> Callable[..., Validator]:
    def build(config: TrainingConfig) -> Validator:
        held_out = open_loader(inputs, config, "val", ref_size=32, target_size=64)
        return Validator(held_out, backbone, config)

    return build


def give_updates(objective: StyleObjective) -> None:
    torch.manual_seed(0)
    for name, parameter in objective.predictor.named_parameters():
        if name.endswith("up"):
            torch.nn.init.normal_(parameter, std=0.2)


def test_an_untrained_predictor_scores_like_the_bare_backbone(
    validated: Callable[..., Validator], config: TrainingConfig, objective: StyleObjective
) -> None:
    metrics = validated(config).losses(objective)
    assert metrics["val/loss_right"] == pytest.approx(metrics["val/loss_null"], abs=1e-6)
    assert metrics["val/loss_wrong"] == pytest.approx(metrics["val/loss_null"], abs=1e-6)
    assert metrics["val/loss_right_high_sigma"] != metrics["val/loss_right"]


def test_losses_do_not_depend_on_how_styles_are_chunked(
    validated: Callable[..., Validator], config: TrainingConfig, objective: StyleObjective
) -> None:
    give_updates(objective)
    whole = validated(config).losses(objective)
    small = config.model_copy(update={"styles_per_step": 1})
    single = validated(small).losses(objective)
    assert whole["val/loss_right"] != pytest.approx(whole["val/loss_null"], rel=1e-3)
    for name, value in whole.items():
        assert single[name] == pytest.approx(value, abs=1e-5), name


def test_wrong_references_belong_to_another_style(
    validated: Callable[..., Validator], config: TrainingConfig
) -> None:
    validator = validated(config)
    styles = validator.batch.styles_N.tolist()
    assert len(set(styles)) == len(validator._own) == 3
    for n, (group, weight) in enumerate(validator._own):
        assert weight == 1
        assert group.right == n
        assert group.wrong != n


def test_a_single_style_has_no_wrong_references(
    validated: Callable[..., Validator], config: TrainingConfig, objective: StyleObjective
) -> None:
    one = config.model_copy(update={"validation_styles": 1})
    metrics = validated(one).losses(objective)
    assert "val/loss_right" in metrics
    assert "val/loss_wrong" not in metrics


def test_the_grid_shows_a_row_for_each_style(
    validated: Callable[..., Validator], config: TrainingConfig, objective: StyleObjective
) -> None:
    config = config.model_copy(update={"grid_styles": 2, "grid_inference_steps": 1})
    validator = validated(config)
    grid = validation_grid(objective, validator, config, draw=True)
    assert grid is not None
    # 3 references, target, no LoRA, 1 reference, 3 references
    assert grid.image.width == 4 + 7 * 100
    first = np.asarray(grid.image)[22 : 22 + 96, 4 : 4 + 96].reshape(-1, 3)
    expected = validator.references.images_NF3SS[0, 0].float().mean(dim=(1, 2))
    assert np.abs(first.mean(axis=0) - expected.numpy()).max() < 4
    style = grid.style
    assert style["val/style_distance"] > 0
    closed = 1 - style["val/style_distance"] / style["val/style_distance_null"]
    assert style["val/style_closed"] == pytest.approx(closed)


def test_no_grid_where_none_is_wanted(
    validated: Callable[..., Validator], config: TrainingConfig, objective: StyleObjective
) -> None:
    config = config.model_copy(update={"grid_styles": 0})
    validator = validated(config)
    assert validation_grid(objective, validator, config, draw=True) is None
