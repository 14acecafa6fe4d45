import numpy as np
import pytest
import torch

from i2l_model.backbones import Backbone
from jobs.training.config import TrainingConfig
from jobs.training.data import PairStore
from jobs.training.encoding import CachedEncoder, OnlineEncoder
from jobs.training.grid import validation_grid
from jobs.training.objective import StyleObjective
from jobs.training.validation import Validator
from jobs.training.worker import build_predictor

pytestmark = pytest.mark.usefixtures("process_group")


@pytest.fixture
def objective(config: TrainingConfig, backbone: Backbone) -> StyleObjective:
    return StyleObjective(build_predictor(config, backbone, None), backbone)


def give_updates(objective: StyleObjective) -> None:
    torch.manual_seed(0)
    for name, parameter in objective.predictor.named_parameters():
        if name.endswith("up"):
            torch.nn.init.normal_(parameter, std=0.2)


def test_an_untrained_predictor_scores_like_the_bare_backbone(
    val_store: PairStore, backbone: Backbone, config: TrainingConfig, objective: StyleObjective
) -> None:
    metrics = Validator(val_store, backbone, config).losses(objective)
    assert metrics["val/loss_right"] == pytest.approx(metrics["val/loss_null"], abs=1e-6)
    assert metrics["val/loss_wrong"] == pytest.approx(metrics["val/loss_null"], abs=1e-6)
    assert metrics["val/loss_right_high_sigma"] != metrics["val/loss_right"]


def test_losses_do_not_depend_on_how_styles_are_chunked(
    val_store: PairStore, backbone: Backbone, config: TrainingConfig, objective: StyleObjective
) -> None:
    give_updates(objective)
    whole = Validator(val_store, backbone, config).losses(objective)
    small = config.model_copy(update={"styles_per_step": 1})
    single = Validator(val_store, backbone, small).losses(objective)
    assert whole["val/loss_right"] != pytest.approx(whole["val/loss_null"], rel=1e-3)
    for name, value in whole.items():
        assert single[name] == pytest.approx(value, abs=1e-5), name


def test_wrong_references_belong_to_another_style(
    val_store: PairStore, backbone: Backbone, config: TrainingConfig
) -> None:
    validator = Validator(val_store, backbone, config)
    style_of_ref = {
        row: style
        for style, pairs in enumerate(val_store.style_pairs)
        for row in val_store.pair_refs_PF[pairs].ravel()
    }
    for (group, weight), style in zip(validator._own, validator.batch.styles_N, strict=True):
        assert weight == 1
        assert {style_of_ref[row] for row in group.right_F} == {style}
        assert style not in {style_of_ref[row] for row in group.wrong_F}


def test_a_single_style_has_no_wrong_references(
    val_store: PairStore, backbone: Backbone, config: TrainingConfig, objective: StyleObjective
) -> None:
    one = config.model_copy(update={"validation_styles": 1})
    metrics = Validator(val_store, backbone, one).losses(objective)
    assert "val/loss_right" in metrics
    assert "val/loss_wrong" not in metrics


def test_cached_and_online_encoding_agree(store: PairStore, backbone: Backbone) -> None:
    reports: list[tuple[str, int, int]] = []
    cached = CachedEncoder(backbone, store, 5, lambda *report: reports.append(report))
    online = OnlineEncoder(backbone, store)
    rows = np.array([7, 0, 23, 7])
    torch.testing.assert_close(cached.latents(rows), online.latents(rows), atol=1e-4, rtol=1e-4)
    pairs = zip(cached.prompt_embeds(rows), online.prompt_embeds(rows), strict=True)
    for left, right in pairs:
        torch.testing.assert_close(left, right, atol=1e-4, rtol=1e-4)
    assert reports[-1] == ("encode prompts", 4, 4)
    assert ("encode images", 24, 24) in reports


def test_the_grid_shows_a_row_for_each_style(
    val_store: PairStore, backbone: Backbone, config: TrainingConfig, objective: StyleObjective
) -> None:
    config = config.model_copy(update={"grid_styles": 2, "grid_inference_steps": 1})
    validator = Validator(val_store, backbone, config)
    grid = validation_grid(objective, validator, config, draw=True)
    assert grid is not None
    # 3 references, target, no LoRA, 1 reference, 3 references
    assert grid.width == 4 + 7 * 100
    first = np.asarray(grid)[22 : 22 + 96, 4 : 4 + 96].reshape(-1, 3)
    expected = val_store.refs_U3SS[validator.batch.refs_NF[0, 0]].float().mean(dim=(1, 2))
    assert np.abs(first.mean(axis=0) - expected.numpy()).max() < 4


def test_no_grid_where_none_is_wanted(
    val_store: PairStore, backbone: Backbone, config: TrainingConfig, objective: StyleObjective
) -> None:
    config = config.model_copy(update={"grid_styles": 0})
    validator = Validator(val_store, backbone, config)
    assert validation_grid(objective, validator, config, draw=True) is None
