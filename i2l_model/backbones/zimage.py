"""Z-Image: the single-stream diffusion transformer, its text encoder and its VAE.

Differences to the project's convention, all handled here: the transformer takes ``1 - sigma`` as
its time and returns ``data - noise``; it reads lists of (C, 1, h, w) latents and of captions
without padding rows.
"""

# B batch, C channels, H W pixels, h w latent cells, T text tokens, D text features

import copy
import logging
import re
from collections.abc import Sequence
from typing import Any

import torch
from diffusers import ZImagePipeline

from i2l_model.backbones.base import Backbone, latent_cells
from i2l_model.errors import InputError
from i2l_model.lora.injection import checkpoint_with_lora

logger = logging.getLogger(__name__)

_MAX_PROMPT_TOKENS = 512  # ZImagePipeline's limit
_PROMPTS_PER_FORWARD = 64
_CAPTION_MULTIPLE = 32  # the transformer pads captions to a multiple of this
_PATCH_SIZE = 2


class ZImageBackbone(Backbone):
    """Z-Image behind the `Backbone` interface.

    Args:
        pipeline: A loaded pipeline; its modules are frozen and put in eval mode.
        name: The backbone's name, see `Backbone`.
    """

    family = "z-image"
    # the seven attention and feed-forward linears of every block
    target_pattern = re.compile(
        r"(layers|noise_refiner|context_refiner)\.\d+\."
        r"(attention\.(to_q|to_k|to_v|to_out\.0)|feed_forward\.w[123])"
    )

    def __init__(self, pipeline: ZImagePipeline, name: str) -> None:
        self.name = name
        self.transformer: Any = pipeline.transformer
        self.vae: Any = pipeline.vae
        self.text_encoder: Any = pipeline.text_encoder
        self.tokenizer: Any = pipeline.tokenizer
        self.scheduler: Any = pipeline.scheduler
        self.image_size = int(self.vae.config.sample_size)
        for module in (self.transformer, self.vae, self.text_encoder):
            module.requires_grad_(False).eval()

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[str]) -> list[torch.Tensor]:
        """Return one (T_i, D) tensor a prompt: the last but one hidden state of its chat turn.

        Equal prompts are encoded once. A prompt above the transformer's caption length is cut, as
        the pipeline does at 512 tokens, with a warning.
        """
        unique = list(dict.fromkeys(prompts))
        embeds: dict[str, torch.Tensor] = {}
        for start in range(0, len(unique), _PROMPTS_PER_FORWARD):
            part = unique[start : start + _PROMPTS_PER_FORWARD]
            embeds.update(zip(part, self._encode_batch(part), strict=True))
        return [embeds[prompt] for prompt in prompts]

    def _encode_batch(self, prompts: list[str]) -> list[torch.Tensor]:
        turns = [self._chat_turn(prompt) for prompt in prompts]
        limit = self.max_prompt_tokens
        for prompt, ids in zip(prompts, self.tokenizer(turns)["input_ids"], strict=True):
            if len(ids) > limit:
                logger.warning("prompt '%.40s...' is cut to %d tokens", prompt, limit)
        inputs = self.tokenizer(
            turns, padding="longest", max_length=limit, truncation=True, return_tensors="pt"
        ).to(self.text_encoder.device)
        mask = inputs["attention_mask"].bool()
        hidden = self.text_encoder.base_model(
            input_ids=inputs["input_ids"], attention_mask=mask, output_hidden_states=True
        ).hidden_states[-2]
        return [rows[kept] for rows, kept in zip(hidden, mask, strict=True)]

    def num_prompt_tokens(self, prompt: str) -> int:
        """Tokens of a prompt with its chat template, after the cut."""
        ids = self.tokenizer([self._chat_turn(prompt)])["input_ids"][0]
        return min(len(ids), self.max_prompt_tokens)

    @property
    def max_prompt_tokens(self) -> int:
        """Longest caption in tokens, with its chat template."""
        # captions start at position 1, the image takes the one after them
        positions = int(self.transformer.config.axes_lens[0]) - 2
        return min(_MAX_PROMPT_TOKENS, positions // _CAPTION_MULTIPLE * _CAPTION_MULTIPLE)

    @torch.no_grad()
    def encode_images(self, images: torch.Tensor) -> torch.Tensor:
        """Return the scaled latents (B, C, h, w) float32 of images (B, 3, H, W) in [-1, 1]."""
        self.latent_shape(images.shape[2], images.shape[3])
        images = images.to(self.vae.device, self.vae.dtype)
        latents: torch.Tensor = self.vae.encode(images).latent_dist.mode().float()
        return (latents - float(self.vae.config.shift_factor)) * float(
            self.vae.config.scaling_factor
        )

    @torch.no_grad()
    def decode_latents(self, latents: torch.Tensor) -> torch.Tensor:
        """Return images (B, 3, H, W) float32 of latents (B, C, h, w)."""
        latents = latents.float() / self.vae.config.scaling_factor + self.vae.config.shift_factor
        latents = latents.to(self.vae.device, self.vae.dtype)
        images: torch.Tensor = self.vae.decode(latents, return_dict=False)[0]
        return images.float()

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """Return (C, h, w); both sides must be multiples of two VAE cells."""
        cell = 2 ** (len(self.vae.config.block_out_channels) - 1)
        h, w = latent_cells(height, width, cell * _PATCH_SIZE)
        for field, side, cells, most in zip(
            ("height", "width"),
            (height, width),
            (h, w),
            self.transformer.axes_lens[1:],
            strict=True,
        ):
            if cells > most:  # positions that the transformer has
                problem = f"must be at most {most * cell * _PATCH_SIZE}"
                raise InputError(field, side, problem, "draw it smaller")
        return int(self.transformer.in_channels), h * _PATCH_SIZE, w * _PATCH_SIZE

    def sample_sigmas(self, num: int, generator: torch.Generator | None = None) -> torch.Tensor:
        """Draw (num,) noise levels: uniform, then the scheduler's static shift."""
        shift = 1.0 if self.scheduler.config.use_dynamic_shifting else float(self.scheduler.shift)
        return self._shifted_uniform(num, generator, shift)

    def inference_sigmas(self, num_inference_steps: int, height: int, width: int) -> torch.Tensor:
        """Return the noise levels that ZImagePipeline uses, (S + 1,) from 1 to 0."""
        if num_inference_steps < 1:
            raise InputError("num_inference_steps", num_inference_steps, "must be >= 1", "raise it")
        scheduler = copy.deepcopy(self.scheduler)
        _, h, w = self.latent_shape(height, width)
        sigmas = torch.linspace(1.0, 1 / num_inference_steps, num_inference_steps).tolist()
        scheduler.set_timesteps(
            sigmas=sigmas, device=self.device, mu=self._dynamic_shift(h * w // _PATCH_SIZE**2)
        )
        sigmas_to_zero: torch.Tensor = scheduler.sigmas
        return sigmas_to_zero.float()

    def pipeline(self) -> ZImagePipeline:
        """Return a ZImagePipeline over the same modules, with a scheduler of its own."""
        return ZImagePipeline(
            scheduler=copy.deepcopy(self.scheduler),
            vae=self.vae,
            text_encoder=self.text_encoder,
            tokenizer=self.tokenizer,
            transformer=self.transformer,
        )

    def enable_gradient_checkpointing(self) -> None:
        """Recompute the transformer's blocks in the backward pass, with their LoRAs."""
        self.transformer.enable_gradient_checkpointing(checkpoint_with_lora)

    def _predict_velocity(
        self, latents: torch.Tensor, sigmas: torch.Tensor, prompt_embeds: Sequence[torch.Tensor]
    ) -> torch.Tensor:
        latents = latents.to(self.device, self.dtype).unsqueeze(2)
        output = self.transformer(
            list(latents.unbind(0)),
            1 - sigmas.to(self.device, torch.float32),
            [embeds.to(self.device, self.dtype) for embeds in prompt_embeds],
            return_dict=False,
        )[0]
        return -torch.stack(output).squeeze(2).float()

    def _chat_turn(self, prompt: str) -> str:
        return str(
            self.tokenizer.apply_chat_template(
                [{"role": "user", "content": prompt}],
                tokenize=False,
                add_generation_prompt=True,
                enable_thinking=True,
            )
        )

    def _dynamic_shift(self, num_image_tokens: int) -> float:
        """The scheduler's mu, linear in the image tokens; read only under dynamic shifting."""
        config: Any = self.scheduler.config
        slope = (config.max_shift - config.base_shift) / (
            config.max_image_seq_len - config.base_image_seq_len
        )
        return float(config.base_shift + slope * (num_image_tokens - config.base_image_seq_len))
