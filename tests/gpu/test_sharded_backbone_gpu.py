"""A transformer that is gathered block by block on a GPU does what a whole one does."""

import copy

import pytest
import torch

from i2l_model.generation import sample_latents
from jobs.training.sharding import shard_backbone
from tests.tiny_backbones import build_tiny, random_factors

pytestmark = pytest.mark.usefixtures("process_group")


def outputs(family: str, *, sharded: bool) -> list[torch.Tensor]:
    """A picture before anything else, then velocity and gradients, with recomputed blocks."""
    backbone = copy.deepcopy(build_tiny(family))
    backbone.enable_gradient_checkpointing()
    if sharded:
        shard_backbone(backbone, 1, "cuda")
    else:
        for part in (backbone.transformer, *backbone.encoders.values()):
            part.to("cuda")
    assert backbone.device.type == "cuda"
    lora = random_factors(backbone.lora_targets(), num_loras=2).to("cuda")
    options = {"lora": lora, "seeds": [1, 2], "num_inference_steps": 2}
    drawn = sample_latents(backbone, ["a star", "a house"], **options)
    leaves = [factor.requires_grad_() for factor in lora.lora_B.values()]
    embeds = backbone.encode_prompts(["a star", "a house"])
    velocity = backbone.velocity(drawn, torch.tensor([0.9, 0.4]).cuda(), embeds, lora)
    velocity.square().mean().backward()
    return [drawn, velocity.detach(), *(leaf.grad for leaf in leaves)]


@pytest.mark.parametrize("family", ["z-image", "flux2", "hidream-o1"])
def test_every_family_computes_the_same(family: str) -> None:
    whole, ours = (outputs(family, sharded=sharded) for sharded in (False, True))
    for found, wanted in zip(ours, whole, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)
