"""Flow-matching loss on held-out targets at high noise.

At low noise the noisy image itself shows the style, which hides whether the LoRA does; above
sigma 0.7 the style has to come from the LoRA. Every condition sees the same noise.
"""

# B batch

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from i2l_model.backbones.base import Backbone
from i2l_model.flow import add_noise, flow_loss
from i2l_model.lora.factors import LoraFactors


@torch.no_grad()
def high_sigma_losses(
    backbone: Backbone,
    latents_BCHW: Tensor,
    prompt_embeds: list[Tensor],
    lora: LoraFactors | None,
    *,
    min_sigma: float,
    seeds: Sequence[int],
) -> list[float]:
    """Loss of each target under N LoRAs; row b uses LoRA b // (B / N).

    Noise levels are spread evenly over [min_sigma, 1] within a style's rows; `seeds` holds the
    noise seed of each style.
    """
    num_targets = len(latents_BCHW) // len(seeds)
    noise = torch.cat(
        [
            backbone.noise((num_targets, *latents_BCHW.shape[1:]), torch.Generator().manual_seed(s))
            for s in seeds
        ]
    ).to(latents_BCHW)
    levels = (torch.arange(num_targets, dtype=torch.float32) + 0.5) / num_targets
    sigmas = (min_sigma + (1.0 - min_sigma) * levels).repeat(len(seeds)).to(latents_BCHW)
    velocity = backbone.velocity(
        add_noise(latents_BCHW, noise, sigmas), sigmas, prompt_embeds, lora
    )
    losses: list[float] = flow_loss(velocity, latents_BCHW, noise).tolist()
    return losses
