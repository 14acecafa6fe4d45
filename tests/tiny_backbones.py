"""Tiny random backbones of every family, by name, and LoRAs for them."""

from collections.abc import Sequence
from functools import cache

import torch

from i2l_model.backbones import Backbone
from i2l_model.backbones.tiny import build_tiny_zimage
from i2l_model.backbones.tiny_flux2 import build_tiny_flux2
from i2l_model.backbones.tiny_hidream import build_tiny_hidream
from i2l_model.lora.factors import LoraFactors, LoraTarget

_BUILDERS = {
    "z-image": lambda: build_tiny_zimage(0),
    "flux2": lambda: build_tiny_flux2(0),
    "flux2-dev": lambda: build_tiny_flux2(0, dev=True),
    "hidream-o1": lambda: build_tiny_hidream(0),
    "hidream-o1-dev": lambda: build_tiny_hidream(0, dev=True),
}


@cache
def build_tiny(name: str) -> Backbone:
    """Return the backbone, the same object each time."""
    return _BUILDERS[name]()


def random_factors(
    targets: Sequence[LoraTarget], num_loras: int = 1, rank: int = 4, seed: int = 0
) -> LoraFactors:
    """Return LoRAs that visibly change a tiny backbone's outputs."""
    generator = torch.Generator().manual_seed(seed)
    lora_A, lora_B = {}, {}
    for target in targets:
        shape_A = (num_loras, rank, target.in_features)
        shape_B = (num_loras, target.out_features, rank)
        std_A = target.in_features**-0.5
        lora_A[target.name] = torch.randn(shape_A, generator=generator) * std_A
        lora_B[target.name] = torch.randn(shape_B, generator=generator) * 0.3
    return LoraFactors(lora_A, lora_B)
