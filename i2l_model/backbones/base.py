"""What the rest of the project needs of a text-to-image diffusion transformer."""

# B batch, C channels, H W pixels, h w latent cells, T text tokens, D text features, S steps

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar

import torch
from torch import nn

from i2l_model.errors import InputError
from i2l_model.lora.factors import LoraFactors, LoraTarget
from i2l_model.lora.injection import inject_lora
from i2l_model.samplers import EulerSampler, Sampler

_BLOCK = re.compile(r".+?\.\d+(?=\.)")  # of a layer's name, up to the number of its block


class Backbone(ABC):
    """A frozen text-to-image model, in the project's flow convention (see `i2l_model.flow`).

    Adapters translate time, sign, containers and latent scaling of their model into it.

    Attributes:
        family: "z-image", "flux2" or "hidream-o1"; LoRA files are named by it.
        target_pattern: Matches the whole names of the linears that a LoRA updates.
        has_frozen_encoders: Whether images and prompts pass encoders that no LoRA changes, so that
            what they give may be kept; else latents are pixels and prompts are token ids.
        entry_point: Method of the transformer that a pass goes in by.
        noise_scale: Standard deviation of the noise at sigma 1.
        name: Asset name, folder name or hub id, stored with every predictor made for it.
        transformer: The velocity network, frozen and in eval mode; its linears carry the LoRAs.
        image_size: Default side of a square image in pixels.
    """

    family: ClassVar[str]
    target_pattern: ClassVar[re.Pattern[str]]
    has_frozen_encoders: ClassVar[bool] = True
    entry_point: ClassVar[str] = "forward"
    noise_scale: float = 1.0
    name: str
    transformer: nn.Module
    image_size: int

    @property
    def distilled(self) -> bool:
        """Whether the model was made to draw in few steps without guidance."""
        return False

    @property
    def device(self) -> torch.device:
        """Device of the transformer."""
        return next(self.transformer.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the transformer's weights."""
        return next(self.transformer.parameters()).dtype

    @classmethod
    def targets_of(cls, transformer: nn.Module) -> tuple[LoraTarget, ...]:
        """Return the layers of such a transformer that a LoRA updates; it may be on "meta"."""
        return tuple(
            LoraTarget(name, linear.in_features, linear.out_features)
            for name, module in transformer.named_modules()
            if cls.target_pattern.fullmatch(name)
            and isinstance(linear := getattr(module, "base_layer", module), nn.Linear)
        )

    def lora_targets(self) -> tuple[LoraTarget, ...]:
        """Return the linear layers of the transformer that a LoRA updates, in module order."""
        return self.targets_of(self.transformer)

    def lora_blocks(self) -> tuple[str, ...]:
        """Return the names of the transformer's blocks that hold LoRA targets, in module order."""
        blocks = (_BLOCK.match(target.name) for target in self.lora_targets())
        return tuple(dict.fromkeys(block.group() for block in blocks if block))

    @property
    def encoders(self) -> dict[str, nn.Module]:
        """VAE and text encoder by name; empty where the transformer reads pixels and texts."""
        parts = {name: getattr(self, name, None) for name in ("vae", "text_encoder")}
        return {name: part for name, part in parts.items() if part is not None}

    @abstractmethod
    def encode_prompts(self, prompts: Sequence[str]) -> list[torch.Tensor]:
        """Return what `velocity` reads of each prompt, without padding rows: (T_i, D) features.

        Where the transformer itself reads the text, and a LoRA changes that: (T_i,) token ids.
        """

    @abstractmethod
    def encode_images(self, images: torch.Tensor) -> torch.Tensor:
        """Return the latents (B, C, h, w) float32 of images (B, 3, H, W) in [-1, 1].

        The posterior's mode, so that an image always has the same latents.
        """

    @abstractmethod
    def decode_latents(self, latents: torch.Tensor) -> torch.Tensor:
        """Return images (B, 3, H, W) float32, about in [-1, 1] and not clamped."""

    @abstractmethod
    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """Return (C, h, w) of an image of that size in pixels; InputError if it does not fit."""

    def noise(self, shape: Sequence[int], generator: torch.Generator) -> torch.Tensor:
        """Draw what the latents are at sigma 1: normal, float32, on the generator's device."""
        device = generator.device
        return self.noise_scale * torch.randn(*shape, generator=generator, device=device)

    @abstractmethod
    def sample_sigmas(self, num: int, generator: torch.Generator | None = None) -> torch.Tensor:
        """Draw training noise levels (num,) float32 in (0, 1], as the backbone was trained."""

    def loss_weights(self, sigmas: torch.Tensor) -> torch.Tensor:
        """Return the weight (B,) of each velocity error in training; one where not said."""
        return torch.ones_like(sigmas)

    @abstractmethod
    def inference_sigmas(self, num_inference_steps: int, height: int, width: int) -> torch.Tensor:
        """Return the scheduler's noise levels (S + 1,) float32, from 1 down to 0."""

    def sampler(self, num_inference_steps: int, height: int, width: int) -> Sampler:
        """Return what takes one batch from noise to data; plain Euler steps where not said."""
        return EulerSampler(self.inference_sigmas(num_inference_steps, height, width))

    @abstractmethod
    def pipeline(self) -> Any:
        """Return the diffusers pipeline over the same modules; InputError where there is none."""

    @abstractmethod
    def enable_gradient_checkpointing(self) -> None:
        """Trade compute for memory in the transformer; injected LoRAs stay in effect."""

    @abstractmethod
    def _predict_velocity(
        self, latents: torch.Tensor, sigmas: torch.Tensor, prompt_embeds: Sequence[torch.Tensor]
    ) -> torch.Tensor:
        """Return ``noise - data`` of the transformer as it stands."""

    def _shifted_uniform(
        self, num: int, generator: torch.Generator | None, shift: float
    ) -> torch.Tensor:
        """Noise levels (num,) in (0, 1]: uniform, then a static shift."""
        device = self.device if generator is None else generator.device
        uniform = 1 - torch.rand(num, generator=generator, device=device)
        return (shift * uniform / (1 + (shift - 1) * uniform)).to(self.device)

    def velocity(
        self,
        latents: torch.Tensor,
        sigmas: torch.Tensor,
        prompt_embeds: Sequence[torch.Tensor],
        lora: LoraFactors | None = None,
    ) -> torch.Tensor:
        """Predict the velocity ``noise - data``, differentiable with respect to ``lora``.

        Args:
            latents: (B, C, h, w) noisy latents.
            sigmas: (B,) noise levels in [0, 1].
            prompt_embeds: B tensors from `encode_prompts`.
            lora: N LoRAs with B = N * K; row b uses LoRA b // K. None leaves the backbone bare.

        Returns:
            (B, C, h, w) float32.

        Raises:
            InputError: If the batch sizes disagree or the LoRA is made for another backbone.
        """
        batch = latents.shape[0]
        if sigmas.shape != (batch,) or len(prompt_embeds) != batch:
            raise InputError(
                "batch",
                f"{batch} latents, {tuple(sigmas.shape)} sigmas, {len(prompt_embeds)} prompts",
                "is not of one size",
                "give one sigma and one prompt for each latent",
            )
        with self._injected(lora):
            return self._predict_velocity(latents, sigmas, prompt_embeds)

    def _injected(self, lora: LoraFactors | None) -> AbstractContextManager[None]:
        return nullcontext() if lora is None else inject_lora(self.transformer, lora)


def latent_cells(height: int, width: int, multiple: int) -> tuple[int, int]:
    """Return (h, w) of an image in cells of ``multiple`` pixels.

    Raises:
        InputError: If a side is no positive multiple.
    """
    for field, side in (("height", height), ("width", width)):
        if side < multiple or side % multiple:
            raise InputError(field, side, f"must be a positive multiple of {multiple}", "round it")
    return height // multiple, width // multiple
