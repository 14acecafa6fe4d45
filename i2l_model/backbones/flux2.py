"""FLUX.2: the double- and single-stream diffusion transformer of klein and dev, and its VAE.

Differences to the project's convention, all handled here: latents are VAE cells in 2 x 2 patches,
normalised by the VAE's batch statistics, and travel as tokens with position ids. Time and sign are
the project's. All slots of a prompt are attended, padding too, so every prompt has one length.
"""

# B batch, C channels, H W pixels, h w latent cells, L image tokens, T text tokens, D text features

import copy
import logging
import re
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import Flux2KleinPipeline, Flux2Pipeline
from diffusers.pipelines.flux2.pipeline_flux2 import compute_empirical_mu

from i2l_model.backbones.base import Backbone, latent_cells
from i2l_model.errors import InputError
from i2l_model.lora.injection import checkpoint_with_lora

logger = logging.getLogger(__name__)

_MAX_PROMPT_TOKENS = 512  # what the released models were trained with
_PATCH_SIZE = 2
_PROMPTS_PER_FORWARD = 16
_TRAINING_MU = 0.8  # DiffSynth-Studio's shift of the training grid, e^mu


class Flux2Backbone(Backbone):
    """FLUX.2 klein or dev behind the `Backbone` interface.

    dev takes a guidance scale as an input of the transformer; `embedded_guidance` sets it.

    Args:
        pipeline: A loaded pipeline; its modules are frozen and put in eval mode.
        name: The backbone's name, see `Backbone`.

    Attributes:
        embedded_guidance: Scale that dev is told, in training and in generation.
    """

    family = "flux2"
    # attention and feed-forward linears of both streams, and the fused ones of the single stream
    target_pattern = re.compile(
        r"transformer_blocks\.\d+\.(attn\.(to_q|to_k|to_v|to_out\.0|add_q_proj|add_k_proj"
        r"|add_v_proj|to_add_out)|ff(_context)?\.linear_(in|out))"
        r"|single_transformer_blocks\.\d+\.attn\.(to_qkv_mlp_proj|to_out)"
    )
    embedded_guidance: float = 3.5

    def __init__(self, pipeline: Flux2KleinPipeline | Flux2Pipeline, name: str) -> None:
        self.name = name
        self.transformer: Any = pipeline.transformer
        self.vae: Any = pipeline.vae
        self.text_encoder: Any = pipeline.text_encoder
        self.scheduler: Any = pipeline.scheduler
        self._pipeline = pipeline
        self.image_size = int(self.vae.config.sample_size)
        for module in (self.transformer, self.vae, self.text_encoder):
            module.requires_grad_(False).eval()

    @property
    def distilled(self) -> bool:
        """Whether it is a klein that is no base model."""
        return bool(self._pipeline.config.get("is_distilled", False))

    @property
    def max_prompt_tokens(self) -> int:
        """Length T of every prompt in tokens, padding included; longer ones are cut."""
        return min(_MAX_PROMPT_TOKENS, int(self._tokenizer.model_max_length))

    @property
    def _tokenizer(self) -> Any:
        tokenizer: Any = self._pipeline.tokenizer
        return getattr(tokenizer, "tokenizer", tokenizer)  # dev has a processor around it

    @property
    def text_layers(self) -> tuple[int, int, int]:
        """Hidden states of the text encoder that make a prompt: a quarter, half, three quarters."""
        config = self.text_encoder.config
        num_layers = int(getattr(config, "text_config", config).num_hidden_layers)
        return num_layers // 4, num_layers // 2, 3 * num_layers // 4

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[str]) -> list[torch.Tensor]:
        """Return one (T, D) tensor a prompt, the same T for all; equal prompts are encoded once."""
        unique = list(dict.fromkeys(prompts))
        embeds: dict[str, torch.Tensor] = {}
        for start in range(0, len(unique), _PROMPTS_PER_FORWARD):
            part = unique[start : start + _PROMPTS_PER_FORWARD]
            self._warn_of_cuts(part)
            encoded, _ = self._pipeline.encode_prompt(
                list(part),
                device=self.text_encoder.device,
                max_sequence_length=self.max_prompt_tokens,
                text_encoder_out_layers=self.text_layers,
            )
            embeds.update(zip(part, encoded, strict=True))
        return [embeds[prompt] for prompt in prompts]

    def _warn_of_cuts(self, prompts: Sequence[str]) -> None:
        for prompt, ids in zip(prompts, self._tokenizer(list(prompts))["input_ids"], strict=True):
            if len(ids) > self.max_prompt_tokens:
                limit = self.max_prompt_tokens
                logger.warning("prompt '%.40s...' is cut to %d tokens", prompt, limit)

    @torch.no_grad()
    def encode_images(self, images: torch.Tensor) -> torch.Tensor:
        """Return the latents (B, C, h, w) float32 of images (B, 3, H, W) in [-1, 1]."""
        self.latent_shape(images.shape[2], images.shape[3])
        images = images.to(self.vae.device, self.vae.dtype)
        cells: torch.Tensor = self.vae.encode(images).latent_dist.mode().float()
        mean, std = self._statistics()
        return (F.pixel_unshuffle(cells, _PATCH_SIZE) - mean) / std

    @torch.no_grad()
    def decode_latents(self, latents: torch.Tensor) -> torch.Tensor:
        """Return images (B, 3, H, W) float32 of latents (B, C, h, w)."""
        mean, std = self._statistics()
        cells = F.pixel_shuffle(latents.to(mean) * std + mean, _PATCH_SIZE)
        images: torch.Tensor = self.vae.decode(cells.to(self.vae.dtype), return_dict=False)[0]
        return images.float()

    def _statistics(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and standard deviation of the latents' channels, (1, C, 1, 1) float32."""
        norm = self.vae.bn
        var = norm.running_var.float() + self.vae.config.batch_norm_eps
        return norm.running_mean.float()[None, :, None, None], var.sqrt()[None, :, None, None]

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """Return (C, h, w); both sides must be multiples of two VAE cells."""
        cell = 2 ** (len(self.vae.config.block_out_channels) - 1)
        channels = int(self.transformer.config.in_channels)
        return channels, *latent_cells(height, width, cell * _PATCH_SIZE)

    def sample_sigmas(self, num: int, generator: torch.Generator | None = None) -> torch.Tensor:
        """Draw (num,) noise levels: uniform, then the exponential shift of training."""
        return self._shifted_uniform(num, generator, shift=torch.e**_TRAINING_MU)

    def inference_sigmas(self, num_inference_steps: int, height: int, width: int) -> torch.Tensor:
        """Return the noise levels that the pipelines use, (S + 1,) from 1 to 0."""
        if num_inference_steps < 1:
            raise InputError("num_inference_steps", num_inference_steps, "must be >= 1", "raise it")
        _, h, w = self.latent_shape(height, width)
        scheduler = copy.deepcopy(self.scheduler)
        scheduler.set_timesteps(
            sigmas=torch.linspace(1, 1 / num_inference_steps, num_inference_steps).tolist(),
            device=self.device,
            mu=compute_empirical_mu(h * w, num_inference_steps),
        )
        sigmas: torch.Tensor = scheduler.sigmas
        return sigmas.float()

    def pipeline(self) -> Flux2KleinPipeline | Flux2Pipeline:
        """Return a pipeline of the same class over the same modules, with its own scheduler."""
        parts = {**self._pipeline.components, "scheduler": copy.deepcopy(self.scheduler)}
        if isinstance(self._pipeline, Flux2KleinPipeline):
            parts["is_distilled"] = self._pipeline.config.is_distilled
        return type(self._pipeline)(**parts)

    def enable_gradient_checkpointing(self) -> None:
        """Recompute the transformer's blocks in the backward pass, with their LoRAs."""
        self.transformer.enable_gradient_checkpointing(checkpoint_with_lora)

    def _predict_velocity(
        self, latents: torch.Tensor, sigmas: torch.Tensor, prompt_embeds: Sequence[torch.Tensor]
    ) -> torch.Tensor:
        h, w = latents.shape[2:]
        text = torch.stack([embeds.to(self.device, self.dtype) for embeds in prompt_embeds])
        guidance = None
        if self.transformer.config.guidance_embeds:
            guidance = torch.full((len(latents),), self.embedded_guidance, device=self.device)
        tokens = self.transformer(
            hidden_states=latents.to(self.device, self.dtype).flatten(2).mT,
            encoder_hidden_states=text,
            timestep=sigmas.to(self.device, torch.float32),
            img_ids=_position_ids(1, h, w, 1).to(self.device),
            txt_ids=_position_ids(1, 1, 1, text.shape[1]).to(self.device),
            guidance=guidance,
            return_dict=False,
        )[0]
        velocity: torch.Tensor = tokens.float().mT.unflatten(2, (h, w))
        return velocity


def _position_ids(*sizes: int) -> torch.Tensor:
    """Positions (L, 4) of (image, row, column, word), the last of them varying fastest."""
    return torch.cartesian_prod(*(torch.arange(size) for size in sizes))
