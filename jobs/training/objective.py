"""The training objective: predict LoRAs, apply them to the frozen backbone, match the velocity."""

# N styles, K targets a style, F references, S pixels, B = N * K, C channels, h w latent cells

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from i2l_model.backbones import Backbone
from i2l_model.flow import add_noise, flow_loss
from i2l_model.lora import LoraFactors
from i2l_model.predictor import LoraPredictor


@dataclass(frozen=True, slots=True)
class Supervision:
    """What the predicted LoRAs are measured on, all of one size; row b belongs to style b // K.

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
    """Reference images of N styles, or what the frozen encoders made of them.

    Attributes:
        mask_NF: bool, False where a reference is absent.
        images_NF3SS: uint8.
        tokens: (N, F, T, E) of each encoder.
    """

    mask_NF: torch.Tensor
    images_NF3SS: torch.Tensor | None = None
    tokens: tuple[torch.Tensor, ...] | None = None

    def first(self) -> "References":
        """The first reference of each style alone."""
        images, tokens = self.images_NF3SS, self.tokens
        return References(
            self.mask_NF[:, :1],
            None if images is None else images[:, :1],
            None if tokens is None else tuple(part[:, :1] for part in tokens),
        )

    def rows(self, styles: Sequence[int]) -> "References":
        """Those of some of the styles."""
        index = list(styles)
        images, tokens = self.images_NF3SS, self.tokens
        return References(
            self.mask_NF[index],
            None if images is None else images[index],
            None if tokens is None else tuple(part[index] for part in tokens),
        )


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
        device, dtype = self.backbone.device, self.backbone.dtype
        images, tokens = references.images_NF3SS, references.tokens
        factors: LoraFactors = self.predictor(
            None if images is None else images.to(device, dtype) / 127.5 - 1,
            references.mask_NF.to(device),
            ref_tokens=None if tokens is None else tuple(part.to(device) for part in tokens),
        )
        return factors.to(dtype=dtype)

    def forward(
        self, references: References, parts: Sequence[tuple[Sequence[int], Supervision]]
    ) -> torch.Tensor:
        """Return the flow-matching loss of each target, (N, K) float32.

        Args:
            references: Of N styles.
            parts: What is measured at each size, and which of the styles it belongs to; together
                every style. A part that is there twice counts once.
        """
        factors = self.predict(references)
        losses: dict[int, torch.Tensor] = {}
        for styles, supervision in parts:
            own = factors if len(parts) == 1 else factors.select(styles)
            loss_NK = supervised_loss(self.backbone, supervision, own).view(len(styles), -1)
            for style, loss_K in zip(styles, loss_NK, strict=True):
                # Only to be computed backward as well where it was measured before.
                losses[style] = losses[style] + 0 * loss_K if style in losses else loss_K
        return torch.stack([losses[style] for style in sorted(losses)])


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
