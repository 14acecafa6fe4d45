"""The predictor on every family: its gradients come through the frozen backbone."""

import pytest
import torch

from i2l_model.predictor import LoraPredictor, PredictorConfig
from i2l_model.tower_config import EncoderConfig
from tests.tiny_backbones import build_tiny


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("family", ["z-image", "flux2", "flux2-dev", "hidream-o1"])
def test_gradients_reach_every_query_and_head(family: str, version: int) -> None:
    backbone = build_tiny(family)
    torch.manual_seed(0)
    predictor = LoraPredictor.build(
        PredictorConfig(
            version=version,
            backbone=backbone.name,
            targets=backbone.lora_targets(),
            rank=2,
            dim=32,
            depth=1,
            num_heads=2,
            compress_dim=8,
            queries_per_factor=2,
            encoder=EncoderConfig(
                image_size=32, patch_size=8, hidden_size=32, num_layers=1, num_heads=2
            ),
        )
    )
    for name, parameter in predictor.named_parameters():
        if name.endswith(".up"):  # B's starts at zero, which would hide what lies before it
            torch.nn.init.normal_(parameter, std=0.1)
    lora = predictor(torch.rand(1, 2, 3, 32, 32) * 2 - 1)
    noise = backbone.noise((2, *backbone.latent_shape(64, 64)), torch.Generator().manual_seed(0))
    embeds = backbone.encode_prompts(["a star", "a house on a hill"])
    backbone.velocity(noise, torch.tensor([0.9, 0.6]), embeds, lora).square().mean().backward()
    for name, parameter in predictor.named_parameters():
        if not parameter.requires_grad:
            continue
        assert parameter.grad is not None, name
        rows = parameter.grad.flatten(1) if parameter.ndim > 1 else parameter.grad[None]
        assert (rows.abs().amax(1) > 0).all(), name
    assert all(parameter.grad is None for parameter in backbone.transformer.parameters())
