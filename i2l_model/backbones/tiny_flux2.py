"""A tiny FLUX.2 with random weights: the real classes, at a size for tests and short trainings."""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import (
    AutoencoderKLFlux2,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Pipeline,
    Flux2Transformer2DModel,
)
from transformers import (
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    Qwen2Tokenizer,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from i2l_model.backbones.flux2 import Flux2Backbone
from i2l_model.backbones.tiny import build_tokenizer, seeded

_TEXT_DIM = 16
_TEXT_SIZES = {
    "hidden_size": _TEXT_DIM,
    "intermediate_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
}
_MAX_PROMPT_TOKENS = 64
_DEV_TEMPLATE = (
    "{%- for message in messages %}{{- '<|im_start|>' }}"
    "{%- for part in message.content %}{{- part.text }}{%- endfor %}"
    "{{- '<|im_end|>' }}{%- endfor %}"
)


def build_tiny_flux2(
    seed: int, folder: str | Path | None = None, *, dev: bool = False
) -> Flux2Backbone:
    """Build a FLUX.2 backbone of a third of a million random weights on the CPU.

    Images have 64 px, latents are (128, 4, 4). The transformer has one double-stream and two
    single-stream blocks: 16 LoRA targets.

    Args:
        seed: Seed of the weights; the global random state stays untouched.
        folder: Where to save the pipeline in the diffusers layout, or None.
        dev: FLUX.2 dev with embedded guidance and Mistral, instead of klein with Qwen.
    """
    with seeded(seed):
        parts: dict[str, Any] = {
            "scheduler": _scheduler(),
            "vae": _tiny_vae(),
            "transformer": _tiny_transformer(guidance_embeds=dev),
        }
        if dev:
            pipeline = Flux2Pipeline(
                **parts, text_encoder=_tiny_mistral(), tokenizer=_tiny_dev_tokenizer()
            )
        else:
            tokenizer = build_tokenizer(max_length=_MAX_PROMPT_TOKENS)
            pipeline = Flux2KleinPipeline(**parts, text_encoder=_tiny_qwen(), tokenizer=tokenizer)
    if folder is None:
        return Flux2Backbone(pipeline, name="random-flux2")
    pipeline.save_pretrained(folder, safe_serialization=True)
    return Flux2Backbone(pipeline, name=Path(folder).name)


def _scheduler() -> FlowMatchEulerDiscreteScheduler:
    return FlowMatchEulerDiscreteScheduler(
        shift=3.0, use_dynamic_shifting=True, time_shift_type="exponential"
    )


def _tiny_transformer(guidance_embeds: bool) -> Flux2Transformer2DModel:
    return Flux2Transformer2DModel(
        num_layers=1,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=4,
        joint_attention_dim=3 * _TEXT_DIM,
        axes_dims_rope=(4, 4, 4, 4),
        guidance_embeds=guidance_embeds,
    )


def _tiny_vae() -> AutoencoderKLFlux2:
    vae = AutoencoderKLFlux2(
        block_out_channels=(8, 8, 8, 8),
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=32,
        sample_size=64,
    )
    with torch.no_grad():  # statistics of coloured blocks, so that latents differ by colour
        images = F.interpolate(2 * torch.rand(64, 3, 2, 2) - 1, scale_factor=32)
        cells = F.pixel_unshuffle(vae.encode(images).latent_dist.mode(), 2)
        vae.bn.running_mean.copy_(cells.mean((0, 2, 3)))
        vae.bn.running_var.copy_(cells.var((0, 2, 3)))
    return vae


def _tiny_qwen() -> Qwen3ForCausalLM:
    return Qwen3ForCausalLM(Qwen3Config(vocab_size=259, **_TEXT_SIZES))


def _tiny_mistral() -> Mistral3ForConditionalGeneration:
    vision = {
        "model_type": "pixtral",
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 32,
        "patch_size": 16,
    }
    text = {"model_type": "mistral", "vocab_size": 260, **_TEXT_SIZES}
    config = Mistral3Config(text_config=text, vision_config=vision, image_token_index=259)
    return Mistral3ForConditionalGeneration(config)


def _tiny_dev_tokenizer() -> Qwen2Tokenizer:
    """The released model has a processor around its tokenizer; text alone needs none."""
    tokenizer = build_tokenizer(max_length=_MAX_PROMPT_TOKENS)
    tokenizer.chat_template = _DEV_TEMPLATE
    return tokenizer
