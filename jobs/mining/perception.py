"""What both offline descriptors see: OKLab pixels, and the figure apart from its ground.

Shapes: N images, H = W = SIDE pixels.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from i2l_model.images import fit_square

Float = NDArray[np.float32]
Pixels = NDArray[np.uint8]

SIDE = 64
BORDER = SIDE // 8

_TO_LMS = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ],
    dtype=np.float32,
)
_TO_OKLAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ],
    dtype=np.float32,
)


def oklab(images: Pixels) -> Float:
    """OKLab (Ottosson 2020) of uint8 sRGB (..., 3): lightness in [0, 1], a and b around ±0.3."""
    steps = np.arange(256) / 255
    linear = np.where(steps <= 0.04045, steps / 12.92, ((steps + 0.055) / 1.055) ** 2.4)
    lms = np.cbrt(linear.astype(np.float32)[images] @ _TO_LMS.T)
    lab: Float = lms @ _TO_OKLAB.T
    return lab


def squared(image: Pixels) -> Pixels:
    """The centre square at SIDE pixels."""
    if image.shape[:2] == (SIDE, SIDE):
        return image
    return np.asarray(fit_square(Image.fromarray(image), SIDE))


def border_mask() -> Float:
    """Weights (H, W), summing to 1, of the outer eighth on each side."""
    mask = np.ones((SIDE, SIDE), dtype=np.float32)
    mask[BORDER:-BORDER, BORDER:-BORDER] = 0
    shares_of_mask: Float = mask / mask.sum()
    return shares_of_mask


def centre_prior() -> Float:
    """Weights (H, W) in [0, 1], one in the middle and zero in the corners."""
    axis = np.linspace(-1, 1, SIDE, dtype=np.float32)
    prior: Float = np.clip(1.3 - np.hypot(axis[:, None], axis[None]), 0, 1)
    return prior


def ground_and_figure(lab: Float) -> tuple[Float, Float]:
    """Weights (N, H, W), each summing to 1, of what the border's colours do and do not explain."""
    border = border_mask()
    mean = np.einsum("nhwc,hw->nc", lab, border)
    offset = (lab - mean[:, None, None]) * np.array([1, 2.5, 2.5], dtype=np.float32)
    covariance = np.einsum("nhwc,nhwd,hw->ncd", offset, offset, border, optimize=True)
    inverse = np.linalg.inv(covariance + 2e-3 * np.eye(3, dtype=np.float32))
    distance = np.einsum("nhwc,ncd,nhwd->nhw", offset, inverse, offset, optimize=True)
    figure = np.clip((distance - 6) / 10, 0, 1) * centre_prior() + 1e-4
    ground = np.clip(1 - distance / 12, 0, 1) + 1e-4
    return shares(ground), shares(figure)


def shares(weights: Float) -> Float:
    """Weights (N, H, W) scaled to sum to 1 for each image."""
    total: Float = weights / weights.sum(axis=(1, 2), keepdims=True)
    return total.astype(np.float32)
