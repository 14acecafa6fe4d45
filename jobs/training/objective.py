"""The training objective: predict LoRAs, apply them to the frozen backbone, match the velocity."""

# N styles, K targets a style, F references, S pixels, B = N * K, C channels, h w latent cells

from dataclasses import dataclass

import torch
from torch import nn

from i2l_model.backbones import Backbone
from i2l_model.flow import add_noise, flow_loss
from i2l_model.lora import LoraFactors
from i2l_model.predictor import LoraPredictor


@dataclass(frozen=True, slots=True)
class Supervision:
    """What the predicted LoRAs are measured on; row b belongs to style b // K.

    Attributes:
        data_BChw: Clean latents, float32.
        noise_BChw: float32.
        sigmas_B: float32.
        prompt_embeds: B tensors of `Backbone.encode_prompts`.
    """

    data_BChw: torch.Tensor
    noise_BChw: torch.Tensor
    sigmas_B: torch.Tensor
    prompt_embeds: list[torch.Tensor]


@dataclass(frozen=True, slots=True)
class References:
    """Reference images of N styles.

    Attributes:
        images_NF3SS: uint8.
        mask_NF: bool, False where a reference is absent.
    """

    images_NF3SS: torch.Tensor
    mask_NF: torch.Tensor


class StyleObjective(nn.Module):
    """The module that DeepSpeed trains: its parameters are the predictor's.

    The backbone is no submodule, so that its frozen weights are neither sharded nor stored.
    """

    def __init__(self, predictor: LoraPredictor, backbone: Backbone) -> None:
        super().__init__()
        self.predictor = predictor
        self.backbone = backbone

    def predict(self, references: References) -> LoraFactors:
        """Return N LoRAs, in the backbone's dtype."""
        device = self.backbone.device
        images = references.images_NF3SS.to(device, self.backbone.dtype) / 127.5 - 1
        factors: LoraFactors = self.predictor(images, references.mask_NF.to(device))
        return factors.to(dtype=self.backbone.dtype)

    def forward(self, references: References, supervision: Supervision) -> torch.Tensor:
        """Return the flow-matching loss of each target, (B,) float32."""
        return supervised_loss(self.backbone, supervision, self.predict(references))


def supervised_loss(
    backbone: Backbone, supervision: Supervision, factors: LoraFactors | None
) -> torch.Tensor:
    """Weighted velocity error (B,) of the backbone with ``factors``, or without a LoRA."""
    device = backbone.device
    data, noise = supervision.data_BChw.to(device), supervision.noise_BChw.to(device)
    sigmas = supervision.sigmas_B.to(device)
    latents = add_noise(data, noise, sigmas)
    velocity = backbone.velocity(latents, sigmas, supervision.prompt_embeds, factors)
    return flow_loss(velocity, data, noise, backbone.loss_weights(sigmas))
