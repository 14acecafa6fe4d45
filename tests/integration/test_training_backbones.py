"""The training job on every family: right references lower the loss, wrong ones do not.

What an adapter turns around (sign, time, latents) must be right for this, not only its shapes.
"""

from pathlib import Path

import pytest
import torch

from i2l_model.backbones import Backbone
from i2l_model.backbones.tiny_flux2 import build_tiny_flux2
from i2l_model.backbones.tiny_hidream import build_tiny_hidream
from i2l_model.flow import add_noise, flow_loss
from i2l_model.images import to_tensor
from jobs.registry.tracking import TrackingConfig
from jobs.training.config import TrainingConfig
from jobs.training.run import run_training
from tests.pair_shards import CONTENTS, draw, write_pairs

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("ray_cluster"), pytest.mark.timeout(600)]

STEPS, STYLES = 40, 24


def fit(backbone: Backbone, steps: int) -> None:
    """Teach a random transformer the pictures, so that there is something for a LoRA to steer."""
    images = torch.cat([to_tensor([draw(s, c) for c in CONTENTS], 64) for s in range(STYLES)])
    latents = backbone.encode_images(images)
    embeds = backbone.encode_prompts([f"a {content}" for content in CONTENTS]) * STYLES
    parameters = list(backbone.transformer.requires_grad_(True).parameters())
    optimizer = torch.optim.AdamW(parameters, 2e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        rows = torch.randint(len(latents), (32,), generator=generator)
        sigmas = backbone.sample_sigmas(32, generator)
        noise = backbone.noise(latents[rows].shape, generator)
        noisy = add_noise(latents[rows], noise, sigmas)
        velocity = backbone.velocity(noisy, sigmas, [embeds[row] for row in rows.tolist()])
        loss = flow_loss(velocity, latents[rows], noise, backbone.loss_weights(sigmas)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    backbone.transformer.requires_grad_(False)


def backbone_of(family: str, folder: Path) -> str:
    if family == "z-image":
        return "tiny-zimage"
    if family == "hidream-o1":
        build_tiny_hidream(0, folder)
        return str(folder)
    flux2 = build_tiny_flux2(0, folder)
    fit(flux2, 150)
    flux2.transformer.save_pretrained(folder / "transformer")
    return str(folder)


@pytest.mark.parametrize(
    ("family", "version"), [("z-image", 2), ("flux2", 2), ("hidream-o1", 2), ("hidream-o1", 1)]
)
def test_right_references_lower_the_loss_below_wrong_ones(
    family: str, version: int, tmp_path: Path
) -> None:
    encoder = {
        "image_size": 32,
        "patch_size": 8,
        "hidden_size": 32,
        "num_layers": 1,
        "num_heads": 2,
    }
    config = TrainingConfig.model_validate(
        {
            "backbone": backbone_of(family, tmp_path / "backbone"),
            "steps": STEPS,
            "styles_per_step": 8,
            "targets_per_style": 2,
            "max_refs": 3,
            "learning_rate": 5e-3,
            "checkpoint_every": STEPS,
            "validate_every": STEPS,
            "validation_styles": 8,
            "grid_styles": 1,
            "grid_inference_steps": 2,
            "num_workers": 1,
            "predictor": {
                "version": version,
                "rank": 4,
                "dim": 64,
                "depth": 1,
                "num_heads": 2,
                "compress_dim": 16,
                "lora_scale": 1.0,
                "encoder": encoder,
            },
        }
    )
    pairs = write_pairs(tmp_path / "pairs", train_styles=STYLES, val_styles=8)
    result = run_training(
        config,
        str(pairs),
        str(tmp_path / "out"),
        tracking=TrackingConfig(uri=f"sqlite:///{tmp_path}/mlflow.db"),
    )
    losses = result.metrics
    assert losses["val/loss_right"] < losses["val/loss_null"]
    assert losses["val/loss_right"] < 0.985 * losses["val/loss_wrong"]
