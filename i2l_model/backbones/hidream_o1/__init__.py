"""HiDream-O1-Image: a vision-language model that draws pixels, on transformers' Qwen3-VL."""

from i2l_model.backbones.hidream_o1.backbone import HIDREAM_IMAGE_SIZE, HiDreamO1Backbone
from i2l_model.backbones.hidream_o1.model import HiDreamO1ForImageGeneration, HiDreamO1Model

__all__ = [
    "HIDREAM_IMAGE_SIZE",
    "HiDreamO1Backbone",
    "HiDreamO1ForImageGeneration",
    "HiDreamO1Model",
]
