"""The released models by name: their transformers' sizes, without their weights."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from diffusers import Flux2Transformer2DModel, ZImageTransformer2DModel
from torch import nn
from transformers import Qwen3VLConfig

from i2l_model.backbones.base import Backbone
from i2l_model.backbones.flux2 import Flux2Backbone
from i2l_model.backbones.hidream_o1 import HiDreamO1Backbone, HiDreamO1Model
from i2l_model.backbones.zimage import ZImageBackbone
from i2l_model.errors import InputError
from i2l_model.lora.factors import LoraTarget


@dataclass(frozen=True)
class Released:
    """A released model.

    Attributes:
        hub_id: Where its weights are.
        backbone: Its adapter.
        build: Builds the transformer, on the device in effect.
    """

    hub_id: str
    backbone: type[Backbone]
    build: Callable[[], nn.Module]

    def transformer(self) -> nn.Module:
        """Return the transformer on the meta device: shapes, no memory."""
        with torch.device("meta"):
            return self.build()

    def lora_targets(self) -> tuple[LoraTarget, ...]:
        """Return the layers that a LoRA updates."""
        return self.backbone.targets_of(self.transformer())


def released(name: str) -> Released:
    """Return a released model.

    Raises:
        InputError: If no model has that name.
    """
    if name not in RELEASED:
        known = ", ".join(RELEASED)
        raise InputError("backbone", name, "is no released model", f"use one of: {known}")
    return RELEASED[name]


def _zimage() -> nn.Module:
    transformer: nn.Module = ZImageTransformer2DModel(axes_lens=[1536, 512, 512])
    return transformer


def _flux2(layers: int, single: int, heads: int, text_dim: int, guided: bool = False) -> nn.Module:
    transformer: nn.Module = Flux2Transformer2DModel(
        num_layers=layers,
        num_single_layers=single,
        num_attention_heads=heads,
        attention_head_dim=128,
        joint_attention_dim=3 * text_dim,
        guidance_embeds=guided,
    )
    return transformer


def _klein_4b() -> nn.Module:
    return _flux2(layers=5, single=20, heads=24, text_dim=2560)


def _klein_9b() -> nn.Module:
    return _flux2(layers=8, single=24, heads=32, text_dim=4096)


def _flux2_dev() -> nn.Module:
    return _flux2(layers=8, single=48, heads=48, text_dim=5120, guided=True)


def _hidream() -> nn.Module:
    text = {
        "model_type": "qwen3_vl_text",
        "vocab_size": 151_936,
        "hidden_size": 4096,
        "intermediate_size": 12_288,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "max_position_embeddings": 262_144,
        "rms_norm_eps": 1e-6,
        "attention_bias": False,
        "rope_scaling": {"rope_type": "default", "mrope_section": [24, 20, 20]},
        "rope_theta": 5_000_000,
    }
    vision = {
        "model_type": "qwen3_vl",
        "depth": 27,
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "num_heads": 16,
        "patch_size": 16,
        "out_hidden_size": 4096,
        "num_position_embeddings": 2304,
        "deepstack_visual_indexes": [8, 16, 24],
    }
    model = HiDreamO1Model(Qwen3VLConfig(text_config=text, vision_config=vision))
    model.visual = None  # as in loading: it reads pictures, which drawing from text has none of
    return model


RELEASED: Mapping[str, Released] = {
    "z-image": Released("Tongyi-MAI/Z-Image", ZImageBackbone, _zimage),
    "z-image-turbo": Released("Tongyi-MAI/Z-Image-Turbo", ZImageBackbone, _zimage),
    "flux.2-klein-base-4b": Released(
        "black-forest-labs/FLUX.2-klein-base-4B", Flux2Backbone, _klein_4b
    ),
    "flux.2-klein-4b": Released("black-forest-labs/FLUX.2-klein-4B", Flux2Backbone, _klein_4b),
    "flux.2-klein-base-9b": Released(
        "black-forest-labs/FLUX.2-klein-base-9B", Flux2Backbone, _klein_9b
    ),
    "flux.2-klein-9b": Released("black-forest-labs/FLUX.2-klein-9B", Flux2Backbone, _klein_9b),
    "flux.2-dev": Released("black-forest-labs/FLUX.2-dev", Flux2Backbone, _flux2_dev),
    "hidream-o1": Released("HiDream-ai/HiDream-O1-Image", HiDreamO1Backbone, _hidream),
    "hidream-o1-dev": Released("HiDream-ai/HiDream-O1-Image-Dev", HiDreamO1Backbone, _hidream),
}
