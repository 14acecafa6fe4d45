"""Regions of an oracle image in which a sample is compared with it."""

# B batch, H height, W width

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

MIN_REGION_PIXELS = 8


@dataclass(frozen=True, slots=True)
class Regions:
    """Boolean masks (B,H,W), shrunk so that figures shifted by a pixel or two still match.

    A region of fewer than `MIN_REGION_PIXELS` pixels counts as absent, e.g. the outline of a
    style that draws none.
    """

    background: Tensor
    figure: Tensor
    outline: Tensor

    def present(self, name: str) -> list[bool]:
        """Whether each image of the batch has the region."""
        mask: Tensor = getattr(self, name)
        return [bool(count >= MIN_REGION_PIXELS) for count in mask.sum((1, 2)).tolist()]


def find_regions(figure_BHW: Tensor, outline_BHW: Tensor) -> Regions:
    """Regions from the renderer's soft masks in [0,1]."""
    outline = outline_BHW > 0.5
    touched = (figure_BHW > 0.05) | (outline_BHW > 0.05)
    inside = (figure_BHW > 0.95) & (outline_BHW < 0.05)
    radius = max(1, figure_BHW.shape[-1] // 32)
    return Regions(
        background=_shrink(~touched, radius), figure=_shrink(inside, radius), outline=outline
    )


def _shrink(mask_BHW: Tensor, radius: int) -> Tensor:
    """Erode by up to `radius` pixels, by less where a region would vanish."""
    result = mask_BHW
    for step in range(1, radius + 1):
        eroded = _erode(mask_BHW, step)
        enough_B = eroded.sum((1, 2)) >= MIN_REGION_PIXELS
        result = torch.where(enough_B[:, None, None], eroded, result)
    return result


def _erode(mask_BHW: Tensor, radius: int) -> Tensor:
    outside = (~mask_BHW).float().unsqueeze(1)
    grown = F.max_pool2d(outside, 2 * radius + 1, stride=1, padding=radius)
    return grown.squeeze(1) < 0.5
