"""Generation: many images in one batch, each with its own LoRA, by the backbone's sampler."""

# B images, N LoRAs, K = B / N images a LoRA, C channels, h w latent cells

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from PIL import Image

from i2l_model.backbones.base import Backbone
from i2l_model.errors import InputError
from i2l_model.guidance import Guidance, check_guidance, negative_branch
from i2l_model.images import to_images
from i2l_model.lora.factors import LoraFactors
from i2l_model.samplers import Sampler

logger = logging.getLogger(__name__)

_NEGATIVE_PROMPT = ""
_MAX_SEED = 2**63 - 1


@torch.no_grad()
def generate(
    backbone: Backbone,
    prompts: Sequence[str],
    *,
    lora: LoraFactors | None = None,
    seeds: Sequence[int],
    num_inference_steps: int = 20,
    guidance_scale: float = 1.0,
    guidance: Guidance = "positive_only",
    negative_lora: LoraFactors | None = None,
    height: int | None = None,
    width: int | None = None,
    batch_size: int = 16,
) -> list[Image.Image]:
    """Draw one image a prompt.

    Args:
        backbone: The text-to-image model.
        prompts: B prompts.
        lora: N LoRAs with B = N * K; image i uses LoRA i // K. None draws with the bare backbone.
        seeds: B seeds in 0..2**63-1. A seed gives the same starting noise whatever the prompt, LoRA
            or batch.
        num_inference_steps: Steps of the backbone's sampler.
        guidance_scale: ``v = v_neg + scale * (v_pos - v_neg)``; 1 is off.
        guidance: What the negative branch (the empty prompt) carries: no LoRA ("positive_only"),
            ``negative_lora`` ("neutral_negative", e.g. from `LoraPredictor.predict_neutral`), or
            the LoRA of its image ("symmetric").
        negative_lora: One LoRA, or N, of the same layers and rank as ``lora``.
        height: Pixels; None is the backbone's own size.
        width: Pixels; None is the backbone's own size.
        batch_size: Images in one forward pass; guidance doubles its samples.

    Returns:
        B images in the order of the prompts.

    Raises:
        InputError: If an argument is out of range, counts disagree or a LoRA is not finite.
    """
    latents = sample_latents(
        backbone,
        prompts,
        lora=lora,
        seeds=seeds,
        num_inference_steps=num_inference_steps,
        guidance_scale=guidance_scale,
        guidance=guidance,
        negative_lora=negative_lora,
        height=height,
        width=width,
        batch_size=batch_size,
    )
    images: list[Image.Image] = []
    for part in torch.split(latents, batch_size) if prompts else ():
        images += to_images(backbone.decode_latents(part).clamp(-1, 1).cpu())
    return images


@torch.no_grad()
def sample_latents(
    backbone: Backbone,
    prompts: Sequence[str],
    *,
    lora: LoraFactors | None = None,
    seeds: Sequence[int],
    num_inference_steps: int = 20,
    guidance_scale: float = 1.0,
    guidance: Guidance = "positive_only",
    negative_lora: LoraFactors | None = None,
    height: int | None = None,
    width: int | None = None,
    batch_size: int = 16,
) -> torch.Tensor:
    """Return the clean latents (B, C, h, w) float32; see `generate`."""
    height = backbone.image_size if height is None else height
    width = backbone.image_size if width is None else width
    shape = backbone.latent_shape(height, width)
    _check(prompts, seeds, guidance_scale, batch_size)
    guided = guidance_scale != 1
    if guided and backbone.distilled:
        logger.warning("%s is distilled and meant to draw without guidance", backbone.name)
    branches = _branches(lora, negative_lora, guidance, guided, len(prompts))
    embeds = backbone.encode_prompts(prompts)
    negative_embeds = backbone.encode_prompts([_NEGATIVE_PROMPT] if guided else [])
    finished = [torch.empty(0, *shape, device=backbone.device)]
    for rows in _batches(len(prompts), lora.num_loras if lora else 1, batch_size):
        batch = _Batch(
            noise=SeededNoise(seeds[rows.start : rows.stop], shape),
            prompt_embeds=embeds[rows.start : rows.stop] + negative_embeds * len(rows),
            lora=branches.rows(rows).to(backbone.device) if branches else None,
        )
        sampler = backbone.sampler(num_inference_steps, height, width)
        finished.append(_integrate(backbone, batch, sampler, guidance_scale))
    return torch.cat(finished)


class SeededNoise:
    """Standard normal noise (B, C, h, w) on the CPU; row i depends on ``seeds[i]`` only."""

    def __init__(self, seeds: Sequence[int], shape: tuple[int, int, int]) -> None:
        self._shape = shape
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def draw(self) -> torch.Tensor:
        """Return the next noise of every row."""
        return torch.stack([torch.randn(self._shape, generator=g) for g in self._generators])


@dataclass(frozen=True)
class _Batch:
    """One forward pass's samples; under guidance the negative branch follows the positive one."""

    noise: SeededNoise
    prompt_embeds: list[torch.Tensor]
    lora: LoraFactors | None


@dataclass(frozen=True)
class _Branches:
    """The LoRAs of the positive and, under guidance, of the negative branch, N each."""

    parts: tuple[LoraFactors, ...]
    images_per_lora: int

    def rows(self, rows: range) -> LoraFactors:
        """Return the LoRAs for these images such that each has equally many of them."""
        owners = [row // self.images_per_lora for row in rows]
        runs = {owner: len(list(run)) for owner, run in groupby(owners)}
        index = list(runs) if len(set(runs.values())) == 1 else owners
        if index == list(range(self.parts[0].num_loras)):
            return LoraFactors.concat(self.parts)
        return LoraFactors.concat([part.select(index) for part in self.parts])


def _integrate(
    backbone: Backbone, batch: _Batch, sampler: Sampler, guidance_scale: float
) -> torch.Tensor:
    """Follow the velocity from noise to data."""

    def noise() -> torch.Tensor:
        return batch.noise.draw().to(backbone.device)

    latents = backbone.noise_scale * noise()
    copies = len(batch.prompt_embeds) // len(latents)
    for index, sigma in enumerate(sampler.sigmas.to(backbone.device)):
        samples = latents.repeat(copies, 1, 1, 1)
        velocity = backbone.velocity(
            samples, sigma.expand(len(samples)), batch.prompt_embeds, batch.lora
        )
        if copies == 2:
            positive, negative = velocity.chunk(2)
            velocity = negative + guidance_scale * (positive - negative)
        latents = sampler.step(index, latents, velocity, noise)
    return latents


def _branches(
    lora: LoraFactors | None,
    negative_lora: LoraFactors | None,
    guidance: Guidance,
    guided: bool,
    num_images: int,
) -> _Branches | None:
    check_guidance(guidance, negative_lora)
    if lora is None:
        if negative_lora is not None:
            raise InputError("negative_lora", "set", "needs a lora", "give lora too")
        return None
    lora.check_finite("lora")
    if num_images % lora.num_loras:
        problem = f"must be a multiple of the {lora.num_loras} LoRAs"
        raise InputError("prompts", num_images, problem, "add prompts")
    images_per_lora = max(num_images // lora.num_loras, 1)
    negative = (negative_branch(lora, guidance, negative_lora),) if guided else ()
    return _Branches((lora, *negative), images_per_lora)


def _batches(num_images: int, num_loras: int, batch_size: int) -> Iterator[range]:
    """Cut the images into batches, at the borders between LoRAs where those fit."""
    images_per_lora = max(num_images // num_loras, 1)
    if images_per_lora <= batch_size:
        batch_size -= batch_size % images_per_lora
    for start in range(0, num_images, batch_size):
        yield range(start, min(start + batch_size, num_images))


def _check(
    prompts: Sequence[str],
    seeds: Sequence[int],
    guidance_scale: float,
    batch_size: int,
) -> None:
    if isinstance(prompts, str):
        raise InputError("prompts", prompts, "is one string", "give a list of prompts")
    if len(prompts) != len(seeds):
        raise InputError("seeds", len(seeds), f"must be {len(prompts)}", "give one for each prompt")
    for seed in seeds:
        if not 0 <= seed <= _MAX_SEED:
            raise InputError("seeds", seed, "must be in 0..2**63-1", "change it")
    if not (guidance_scale >= 1 and math.isfinite(guidance_scale)):
        problem = "must be >= 1 and finite"
        raise InputError("guidance_scale", guidance_scale, problem, "use 1 for no guidance")
    if batch_size < 1:
        raise InputError("batch_size", batch_size, "must be at least 1", "raise it")
