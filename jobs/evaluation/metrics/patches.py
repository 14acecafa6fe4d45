"""Style distance to the references alone: sliced Wasserstein distance of picture patches.

For corpora without oracle images. Patches at several scales are projected on fixed random
directions; sorted projections of the sample and of its references are compared. Which colours
and strokes occur counts, not where. It shares nothing with the miner's descriptor.
"""

# N images, P patches of an image, D patch values, S directions, Q quantiles, L scales

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

SCALES_PX = (64, 32, 16)
PATCH_PX = 5
NUM_DIRECTIONS = 32
NUM_QUANTILES = 128
DIRECTION_SEED = 20


def set_quantiles(images_NCHW: Tensor) -> Tensor:
    """Quantiles (L,S,Q) of the projected patches of all given images together."""
    rows = [
        _quantiles(projected.transpose(0, 1).flatten(1)) for projected in _projections(images_NCHW)
    ]
    return torch.stack(rows)


def reference_distances(samples_NCHW: Tensor, reference_quantiles_LSQ: Tensor) -> list[float]:
    """Distance of each sample to the `set_quantiles` of its style's references, in [0,1] units."""
    rows = [_quantiles(projected) for projected in _projections(samples_NCHW)]
    gaps = (torch.stack(rows, dim=1) - reference_quantiles_LSQ).abs()
    distances: list[float] = gaps.mean((1, 2, 3)).tolist()
    return distances


def _projections(images_NCHW: Tensor) -> list[Tensor]:
    """Patches on every direction, (N,S,P) a scale."""
    directions_DS = _directions(images_NCHW.shape[1]).to(images_NCHW)
    projections = []
    for scale in SCALES_PX:
        scaled = F.interpolate(
            images_NCHW, size=(scale, scale), mode="bilinear", antialias=True, align_corners=False
        )
        patches_NDP = F.unfold(scaled, PATCH_PX, stride=max(1, scale // 32))
        projections.append(torch.einsum("ndp,ds->nsp", patches_NDP, directions_DS))
    return projections


def _quantiles(projected: Tensor) -> Tensor:
    """Evenly spaced order statistics of the last axis."""
    count = projected.shape[-1]
    levels = (torch.arange(NUM_QUANTILES, device=projected.device) + 0.5) / NUM_QUANTILES
    return projected.sort(dim=-1).values[..., (levels * count).long()]


def _directions(num_channels: int) -> Tensor:
    generator = torch.Generator().manual_seed(DIRECTION_SEED)
    directions = torch.randn(num_channels * PATCH_PX**2, NUM_DIRECTIONS, generator=generator)
    unit: Tensor = directions / directions.norm(dim=0, keepdim=True)
    return unit
