"""Every family on a GPU gives what it gives on the CPU, LoRAs of a batch included."""

import copy

import pytest
import torch

from i2l_model.generation import sample_latents
from tests.tiny_backbones import build_tiny, random_factors

FAMILIES = ("z-image", "flux2", "flux2-dev", "hidream-o1", "hidream-o1-dev")


def on_gpu(family: str):
    backbone = copy.deepcopy(build_tiny(family))
    for part in ("transformer", "vae", "text_encoder"):
        if hasattr(backbone, part):
            getattr(backbone, part).to("cuda")
    return backbone


@pytest.mark.parametrize("family", FAMILIES)
def test_velocity_and_latents_agree_with_the_cpu(family: str) -> None:
    lora = random_factors(build_tiny(family).lora_targets(), num_loras=2)
    found = []
    for backbone in (build_tiny(family), on_gpu(family)):
        latents = backbone.noise((2, *backbone.latent_shape(64, 64)), torch.Generator())
        embeds = backbone.encode_prompts(["a star", "a house on a hill"])
        device = backbone.device
        velocity = backbone.velocity(
            latents.to(device), torch.tensor([0.9, 0.4], device=device), embeds, lora.to(device)
        )
        images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
        drawn = sample_latents(
            backbone, ["a", "b"], lora=lora, seeds=[1, 2], num_inference_steps=2, guidance_scale=2.0
        )
        found.append((velocity.cpu(), backbone.encode_images(images).cpu(), drawn.cpu()))
    for ours, wanted in zip(found[1], found[0], strict=True):
        assert (ours - wanted).abs().max() <= 2e-3 * wanted.abs().max()


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_in_bfloat16_point_where_those_of_float32_do(family: str) -> None:
    gradients = []
    for dtype in (torch.float32, torch.bfloat16):
        backbone = on_gpu(family)
        backbone.embedded_guidance = 4.0  # dev multiplies it by 1000: bfloat16 has no 3500
        backbone.transformer.to(dtype)
        lora = random_factors(backbone.lora_targets()).to("cuda")
        leaves = [factor.requires_grad_() for factor in lora.lora_B.values()]
        latents = backbone.noise((2, *backbone.latent_shape(64, 64)), torch.Generator())
        embeds = backbone.encode_prompts(["a star", "a house"])
        sigmas = torch.tensor([0.9, 0.4], device="cuda")
        loss = backbone.velocity(latents.cuda(), sigmas, embeds, lora).square().mean()
        gradients.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, leaves)]))
    assert torch.cosine_similarity(*gradients, dim=0) > 0.95
