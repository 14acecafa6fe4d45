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
    from tests.tiny_backbones import random_factors

    def make(
        num_loras: int = 1,
        rank: int = 4,
        seed: int = 0,
        targets: Sequence[LoraTarget] | None = None,
    ) -> LoraFactors:
        return random_factors(targets or backbone.lora_targets(), num_loras, rank, seed)

    return make
