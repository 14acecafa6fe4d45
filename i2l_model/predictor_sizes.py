"""Full-size predictors for the released backbones: one place for their sizes.

The released predictors' own sizes are not public; these are the project's.
"""

from collections.abc import Mapping
from typing import Literal

import torch

from i2l_model.backbones.released import released
from i2l_model.predictor import LoraPredictor
from i2l_model.predictor_config import PredictorConfig
from i2l_model.released_towers import DINOV3_7B, SIGLIP2_GIANT_384

_SIZES: Mapping[int, Mapping[str, int]] = {
    2: {
        "rank": 16,
        "dim": 1024,
        "depth": 8,
        "num_heads": 16,
        "compress_dim": 64,
        "queries_per_factor": 16,
    },
    1: {"rank": 4, "dim": 1, "depth": 1, "num_heads": 1, "compress_dim": 128},
}


def full_size_config(
    backbone: str, version: Literal[1, 2] = 2, *, dinov3: bool | None = None
) -> PredictorConfig:
    """Return the configuration of a full-size predictor, its encoders given by their sizes.

    Args:
        backbone: Name of a released backbone.
        version: Architecture.
        dinov3: Add the second encoder; None adds it to version 1, as in the earlier release.

    Raises:
        InputError: If no backbone has that name.
    """
    second = version == 1 if dinov3 is None else dinov3
    return PredictorConfig(
        version=version,
        backbone=backbone,
        targets=released(backbone).lora_targets(),
        encoder=SIGLIP2_GIANT_384,
        dinov3=DINOV3_7B if second else None,
        **_SIZES[version],
    )


def on_meta(config: PredictorConfig) -> LoraPredictor:
    """Return the predictor on the meta device: shapes, no memory.

    Its encoders must be given by their sizes: a pretrained one is read from its weights.
    """
    with torch.device("meta"):
        return LoraPredictor.build(config)
