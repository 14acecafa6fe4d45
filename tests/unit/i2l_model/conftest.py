"""One random tiny backbone for the package's tests, and LoRAs for it.

The model's modules are imported in the fixtures: this file is read before the outer conftest.py has
set the environment that those libraries read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from i2l_model.backbones.zimage import ZImageBackbone
    from i2l_model.lora.factors import LoraFactors, LoraTarget


@pytest.fixture(scope="session")
def backbone() -> ZImageBackbone:
    from i2l_model.backbones.tiny import build_tiny_zimage

    return build_tiny_zimage(seed=0)


@pytest.fixture(scope="session")
def random_lora(backbone: ZImageBackbone) -> Callable[..., LoraFactors]:
    """random_lora(num_loras, rank=4, seed=0, targets=all): factors that visibly change outputs."""
    import torch

    from i2l_model.lora.factors import LoraFactors

    def make(
        num_loras: int = 1,
        rank: int = 4,
        seed: int = 0,
        targets: Sequence[LoraTarget] | None = None,
    ) -> LoraFactors:
        generator = torch.Generator().manual_seed(seed)
        lora_A, lora_B = {}, {}
        for target in targets or backbone.lora_targets():
            shape_A = (num_loras, rank, target.in_features)
            shape_B = (num_loras, target.out_features, rank)
            std_A = target.in_features**-0.5
            lora_A[target.name] = torch.randn(shape_A, generator=generator) * std_A
            lora_B[target.name] = torch.randn(shape_B, generator=generator) * 0.3
        return LoraFactors(lora_A, lora_B)

    return make
