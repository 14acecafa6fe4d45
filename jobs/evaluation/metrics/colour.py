"""CIE Lab and masked colour statistics."""

# B batch, C channels, H height, W width

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

WHITE_D65 = (0.95047, 1.0, 1.08883)
RGB_TO_XYZ = (
    (0.4124564, 0.3575761, 0.1804375),
    (0.2126729, 0.7151522, 0.0721750),
    (0.0193339, 0.1191920, 0.9503041),
)
# Lab distances are reported / 100: black to white is 1.
LAB_RANGE = 100.0


def stack_images(images: list[Image.Image]) -> Tensor:
    """RGB pictures of one size as (B,3,H,W) float32 in [0,1]."""
    arrays = [np.asarray(image.convert("RGB"), dtype=np.float32) / 255.0 for image in images]
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).contiguous()


def rgb_to_lab(rgb_BCHW: Tensor) -> Tensor:
    """sRGB in [0,1] to CIE Lab (D65): L in [0,100], a and b about [-110,110]."""
    rgb = rgb_BCHW.clamp(0.0, 1.0)
    linear = torch.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    matrix = torch.tensor(RGB_TO_XYZ, dtype=rgb.dtype, device=rgb.device)
    white = torch.tensor(WHITE_D65, dtype=rgb.dtype, device=rgb.device).view(1, 3, 1, 1)
    xyz = torch.einsum("ij,bjhw->bihw", matrix, linear) / white
    delta = 6.0 / 29.0
    # The clamp keeps the unused branch of the cube root finite.
    f = torch.where(
        xyz > delta**3, xyz.clamp_min(1e-9) ** (1 / 3), xyz / (3 * delta**2) + 4.0 / 29.0
    )
    x, y, z = f.unbind(1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=1)


def masked_moments(image_BCHW: Tensor, mask_BHW: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel inside the mask: two (B,C)."""
    weights = mask_BHW.unsqueeze(1).to(image_BCHW.dtype)
    total = weights.sum((2, 3)).clamp_min(1e-6)
    mean = (image_BCHW * weights).sum((2, 3)) / total
    centred = image_BCHW - mean[:, :, None, None]
    variance = (centred.square() * weights).sum((2, 3)) / total
    return mean, variance.clamp_min(0.0).sqrt()


def moment_distance(left_BCHW: Tensor, right_BCHW: Tensor, mask_BHW: Tensor) -> Tensor:
    """Distance (B,) of colour means and spreads in one region, in Lab / 100.

    Where a colour sits inside the region does not matter, so a shifted texture costs nothing.
    """
    left_mean, left_std = masked_moments(left_BCHW, mask_BHW)
    right_mean, right_std = masked_moments(right_BCHW, mask_BHW)
    squares = (left_mean - right_mean).square().sum(1) + (left_std - right_std).square().sum(1)
    return squares.sqrt() / LAB_RANGE
