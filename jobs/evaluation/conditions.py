"""Samples of held-out styles under one condition: a batch of LoRAs, or none.

null        the backbone without LoRA
wrong_refs  the LoRA predicted from another style's references
i2l_<n>     the LoRA predicted from n references
style_lora  a LoRA trained on the references, see `per_style_lora.py`

All conditions start from the same noise, so they differ by the LoRA alone.
"""

# N styles, K samples a style, C channels, H height, W width

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from i2l_model.backbones.base import Backbone
from i2l_model.generation import generate
from i2l_model.images import decode_image, to_tensor
from i2l_model.lora.factors import LoraFactors
from i2l_model.predictor import LoraPredictor
from jobs.evaluation.config import EvaluationConfig
from jobs.evaluation.held_out import HeldOutStyle
from jobs.evaluation.held_out_images import LabelledImage
from jobs.evaluation.metrics.colour import stack_images

NULL = "null"
WRONG_REFS = "wrong_refs"
STYLE_LORA = "style_lora"
REAL = "real"


def i2l_condition(num_refs: int) -> str:
    """Name of the condition with that many references."""
    return f"i2l_{num_refs}"


def budget_condition(num_steps: int) -> str:
    """Name of the per-style LoRA after that many steps, within a chunk."""
    return f"{STYLE_LORA}@{num_steps}"


def picture_tensor(images: Sequence[LabelledImage], size: int) -> Tensor:
    """Decoded pictures as (N,3,size,size) in [-1,1]."""
    return to_tensor([decode_image(image.data, name=image.key) for image in images], size)


@torch.no_grad()
def predict_loras(
    predictor: LoraPredictor, references: Sequence[Sequence[LabelledImage]], *, num_refs: int
) -> LoraFactors:
    """One LoRA a style from its first `num_refs` references; styles with fewer are masked."""
    size = predictor.image_size
    device = next(predictor.parameters()).device
    taken = [list(images[:num_refs]) for images in references]
    mask = torch.tensor([[slot < len(images) for slot in range(num_refs)] for images in taken])
    padded = [image for images in taken for image in (images * num_refs)[:num_refs]]
    pictures = picture_tensor(padded, size).unflatten(0, (len(taken), num_refs))
    factors: LoraFactors = predictor(pictures.to(device), mask.to(device))
    return factors.detach()


def sample_condition(
    backbone: Backbone,
    styles: Sequence[HeldOutStyle],
    lora: LoraFactors | None,
    config: EvaluationConfig,
) -> Tensor:
    """Samples (N*K,3,H,W) in [0,1], ordered by style, prompt and seed."""
    draws = [
        (prompt.prompt, seed)
        for style in styles
        for prompt in style.prompts
        for seed in prompt.seeds
    ]
    size = config.image_size or backbone.image_size
    images = generate(
        backbone,
        [prompt for prompt, _ in draws],
        lora=lora,
        seeds=[seed for _, seed in draws],
        num_inference_steps=config.num_inference_steps,
        guidance_scale=config.guidance_scale,
        guidance=config.guidance,
        height=size,
        width=size,
        batch_size=config.batch_size,
    )
    return stack_images(images)
