"""Backbones: the frozen text-to-image models that the LoRAs are made for."""

from i2l_model.backbones.base import Backbone
from i2l_model.backbones.flux2 import Flux2Backbone
from i2l_model.backbones.hidream_o1 import HiDreamO1Backbone
from i2l_model.backbones.loading import load_backbone
from i2l_model.backbones.zimage import ZImageBackbone

__all__ = ["Backbone", "Flux2Backbone", "HiDreamO1Backbone", "ZImageBackbone", "load_backbone"]
