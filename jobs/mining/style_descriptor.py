"""Offline style encoder: a training-free descriptor of palette, texture, outline and grain.

Each block is a non-negative histogram per image, square-rooted, so that the cosine of two blocks
is their Bhattacharyya overlap; blocks are weighted by ``sqrt(weight)`` and concatenated, so that
the cosine of two descriptors is the weighted mean of the blocks' overlaps.

Border against figure: pixels that the border's colours do not explain are the figure. Colours,
textures and outline are read for both apart, since a style's ground and its figures differ and
the figure's area depends on the content.

Shapes: N images, H = W = SIDE pixels, K filters, D descriptor.
"""

from collections.abc import Sequence
from functools import cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from jobs.mining.perception import (
    SIDE,
    Float,
    Pixels,
    border_mask,
    ground_and_figure,
    oklab,
    shares,
    squared,
)

INPUT_PX = 192  # grain is read from the centre at this resolution, where the image has it
LIGHTNESS_BINS, CHROMA_BINS = 8, 7
CHROMA_SPAN = 0.5  # OK a and b outside +-0.25 fall into the last bin
SCALES = (0.40, 0.28, 0.18, 0.11)  # cycles per pixel
NUM_ORIENTATIONS = 6
ENERGY_BINS = np.linspace(-11.5, -1.5, 9, dtype=np.float32)  # log of mean squared response
STEP_BINS = np.linspace(-0.6, 0.6, 9, dtype=np.float32)  # lightness or chroma difference
GRAIN_RINGS = 8
WEIGHTS = {
    "border_colour": 0.42,
    "figure_colour": 0.30,
    "ground_texture": 0.09,
    "figure_texture": 0.07,
    "outline": 0.04,
    "grain": 0.08,
}


class OfflineStyleEncoder:
    """Encoder(images, captions) → (N, D) float32, L2-normalised; captions are not read."""

    name = "offline-style"
    input_px = INPUT_PX

    def __init__(self) -> None:
        self._filters = filter_bank()
        self._rings = _spectrum_rings()

    def __call__(self, images: Sequence[Pixels], captions: Sequence[str]) -> Float:
        """Describe N images, each (h, w, 3) uint8 sRGB of any size."""
        del captions
        small = np.stack([squared(image) for image in images])
        lab = oklab(small)
        ground, figure = ground_and_figure(lab)
        border = np.broadcast_to(border_mask(), ground.shape)
        response = self._responses(lab[..., 0])
        blocks = {
            "border_colour": colour_histogram(lab, border),
            "figure_colour": colour_histogram(lab, figure),
            "ground_texture": _energies(response, ground),
            "figure_texture": _energies(response, figure),
            "outline": _outline_steps(lab, ground, figure),
            "grain": self._grain(images),
        }
        parts = [np.sqrt(WEIGHTS[name]) * _unit(np.sqrt(block)) for name, block in blocks.items()]
        return _unit(np.concatenate(parts, axis=1)).astype(np.float32)

    def _responses(self, lightness: Float) -> Float:
        """Squared filter responses (K, N, H, W)."""
        spectrum = np.fft.rfft2(lightness)
        size = (SIDE, SIDE)
        filtered = [np.fft.irfft2(spectrum * f, s=size) for f in self._filters]
        return np.square(np.stack(filtered)).astype(np.float32)

    def _grain(self, images: Sequence[Pixels]) -> Float:
        """Soft histograms of log power in GRAIN_RINGS rings, from the unscaled centre."""
        centres = oklab(np.stack([_unscaled_centre(image) for image in images]))[..., 0]
        flat = centres - ndimage.uniform_filter(centres, size=(0, 5, 5), mode="reflect")
        power = np.square(np.abs(np.fft.rfft2(flat))) / SIDE**2
        rings = np.stack([power[:, ring].mean(axis=1) for ring in self._rings], axis=1)
        return _soft_histogram(np.log(rings + 1e-5), ENERGY_BINS)


def colour_histogram(lab: Float, weights: Float) -> Float:
    """Joint histogram of lightness, a and b with linear sharing between bins.

    Args:
        lab: (N, H, W, 3).
        weights: (N, H, W), non-negative.

    Returns:
        (N, LIGHTNESS_BINS · CHROMA_BINS²), each row summing to 1.
    """
    N = len(lab)
    chroma = np.clip(lab[..., 1:] / CHROMA_SPAN + 0.5, 0, 0.9999) * (CHROMA_BINS - 1)
    lightness = np.clip(lab[..., :1], 0, 0.9999) * (LIGHTNESS_BINS - 1)
    position = np.concatenate([lightness, chroma], axis=-1)
    low = position.astype(np.int64)
    share = position - low
    num_bins = LIGHTNESS_BINS * CHROMA_BINS**2
    base = (low[..., 0] * CHROMA_BINS + low[..., 1]) * CHROMA_BINS + low[..., 2]
    base += np.arange(N)[:, None, None] * num_bins
    histogram = np.zeros(N * num_bins)
    for corner in np.ndindex(2, 2, 2):
        part = weights.copy()
        for axis, step in enumerate(corner):
            part *= share[..., axis] if step else 1 - share[..., axis]
        offset = (corner[0] * CHROMA_BINS + corner[1]) * CHROMA_BINS + corner[2]
        histogram += np.bincount((base + offset).ravel(), part.ravel(), minlength=N * num_bins)
    rows = histogram.reshape(N, num_bins)
    shares_of_bins: Float = (rows / rows.sum(axis=1, keepdims=True)).astype(np.float32)
    return shares_of_bins


def _unscaled_centre(image: Pixels) -> Pixels:
    """The central SIDE × SIDE pixels, unscaled unless the image is smaller."""
    height, width = image.shape[:2]
    if min(height, width) < SIDE:
        return squared(image)
    top, left = (height - SIDE) // 2, (width - SIDE) // 2
    return image[top : top + SIDE, left : left + SIDE]


@cache
def filter_bank() -> Float:
    """Log-Gabor filters (K, H, W // 2 + 1) in the Fourier plane, K = scales × orientations."""
    fy = np.fft.fftfreq(SIDE)[:, None]
    fx = np.fft.rfftfreq(SIDE)[None]
    radius, angle = np.hypot(fx, fy) + 1e-9, np.arctan2(fy, fx)
    filters = []
    for scale in SCALES:
        radial = np.exp(-(np.log(radius / scale) ** 2) / (2 * np.log(0.7) ** 2))
        for k in range(NUM_ORIENTATIONS):
            turn = np.angle(np.exp(2j * (angle - k * np.pi / NUM_ORIENTATIONS))) / 2
            filters.append(radial * np.exp(-(turn**2) / (2 * (np.pi / 10) ** 2)))
    return np.stack(filters).astype(np.float32)


def _spectrum_rings() -> list[NDArray[np.bool_]]:
    radius = np.hypot(np.fft.fftfreq(SIDE)[:, None], np.fft.rfftfreq(SIDE)[None])
    edges = np.linspace(0.1, 0.6, GRAIN_RINGS + 1)
    return [(radius >= a) & (radius < b) for a, b in pairwise(edges)]


def _energies(response: Float, weights: Float) -> Float:
    """Soft histograms of each filter's log energy inside the weighted area, (N, K · bins)."""
    energy = np.einsum("knhw,nhw->nk", response, weights, optimize=True)
    return _soft_histogram(np.log(energy + 1e-5), ENERGY_BINS)


def _outline_steps(lab: Float, ground: Float, figure: Float) -> Float:
    """How the figure's rim differs from its inside and from the ground, in lightness and chroma."""
    solid = figure * (SIDE**2 / 4)
    solid = np.clip(solid / np.maximum(solid.max(axis=(1, 2), keepdims=True), 1e-6) * 2, 0, 1)
    inside = ndimage.minimum_filter(solid, size=(0, 5, 5))
    rim = shares(np.clip(solid - inside, 0, 1) + 1e-5)
    inside = shares(inside + 1e-5)
    chroma = np.hypot(lab[..., 1], lab[..., 2])
    planes = np.stack([lab[..., 0], chroma], axis=-1)
    means = {
        name: np.einsum("nhwc,nhw->nc", planes, area)
        for name, area in (("rim", rim), ("inside", inside), ("ground", ground))
    }
    steps = [means["rim"] - means["inside"], means["rim"] - means["ground"]]
    return _soft_histogram(np.concatenate(steps, axis=1), STEP_BINS)


def _soft_histogram(values: Float, centres: Float) -> Float:
    """Each of (N, C) values as a bump over bin centres: (N, C · bins), non-negative."""
    width = centres[1] - centres[0]
    clipped = np.clip(values, centres[0], centres[-1])
    bumps = np.exp(-(((clipped[..., None] - centres) / width) ** 2))
    bumps /= bumps.sum(axis=-1, keepdims=True)
    rows: Float = bumps.reshape(len(values), -1).astype(np.float32)
    return rows


def _unit(rows: Float) -> Float:
    unit: Float = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit
