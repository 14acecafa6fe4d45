"""Quality without a learnt judge: failed samples, sharpness and contrast."""

# B batch, C channels, H height, W width

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

FLAT_STD = 2.0 / 255.0
LUMINANCE = (0.299, 0.587, 0.114)


def failed_samples(samples_BCHW: Tensor) -> list[bool]:
    """True for samples that hold a NaN or show nothing but one colour."""
    broken = ~torch.isfinite(samples_BCHW).flatten(1).all(1)
    flat = samples_BCHW.flatten(2).std(2).amax(1) < FLAT_STD
    failed: list[bool] = (broken | flat).tolist()
    return failed


def sharpness(images_BCHW: Tensor) -> Tensor:
    """(B,) root mean square of the Laplacian of luminance."""
    kernel = torch.tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]]).to(images_BCHW).view(1, 1, 3, 3)
    return F.conv2d(_luminance(images_BCHW), kernel).flatten(1).square().mean(1).sqrt()


def contrast(images_BCHW: Tensor) -> Tensor:
    """(B,) standard deviation of luminance."""
    return _luminance(images_BCHW).flatten(1).std(1)


def log_ratio_errors(values_B: Tensor, expected_B: Tensor) -> list[float]:
    """|log(value / expected)|: twice as sharp is as wrong as half as sharp; 0 is right."""
    floor = 1.0 / 255.0
    errors: list[float] = ((values_B + floor).log() - (expected_B + floor).log()).abs().tolist()
    return errors


def _luminance(images_BCHW: Tensor) -> Tensor:
    weights = torch.tensor(LUMINANCE).to(images_BCHW).view(1, 3, 1, 1)
    return (images_BCHW * weights).sum(1, keepdim=True)
