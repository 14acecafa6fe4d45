"""What the offline style encoder measures of a picture: strokes, textures, edges, tones.

Two views. The picture scaled to SIDE pixels is filtered by log-Gabor filters, which read its
textures and lines however large it is. Its pixels as they are show how it was made: sharp or
soft edges, flat areas, grain, dither, a pixel grid, the number of colours. What colours a picture
has is left out but for its tones, since within one hand they follow from what is shown.

Shapes: N images, H = W = SIDE pixels, K filters = scales x orientations, h w any size.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import fft

from jobs.mining.filter_bank import filter_bank
from jobs.mining.perception import (
    SIDE,
    Float,
    Pixels,
    border_mask,
    ground_and_figure,
    oklab,
    squared,
)

INPUT_PX = 192  # side of the centre square whose pixels are read; smaller pictures are not scaled
POOL = 3  # pixels over which a filter's energy is a local one
FLAT_STEPS = (0, 1, 2, 4, 8, 16, 32, 64)  # largest 8-bit difference to the next pixel
GRADIENT_BINS = np.linspace(np.log(0.01), 0.0, 11)  # log of lightness per pixel
NUM_ANGLES = 12
GRADIENT_SIDE = 96  # of larger pictures, gradients are read at every second pixel
PATTERNS = ((1, 0.01), (1, 0.04), (2, 0.02), (3, 0.03))  # radius in pixels, lightness step
COLOUR_RANKS = (0, 1, 3, 7, 15, 31)  # share of the most frequent colours up to this rank
MAX_PERIOD = 12  # pixels
NUM_TONES = 10


def statistics(images: Sequence[Pixels]) -> Float:
    """(N, D) float32, not scaled: filter statistics, then pixel statistics.

    Args:
        images: (h, w, 3) uint8 sRGB, each of any size.
    """
    lab = oklab(np.stack([squared(image) for image in images]))
    pixels = np.stack([_pixel_statistics(image) for image in images])
    return np.concatenate([_filter_statistics(lab), pixels], axis=1).astype(np.float32)


def _filter_statistics(lab: Float) -> Float:
    """Energies of figure and border, and how unevenly each filter responds: (N, 4 K)."""
    N = len(lab)
    _, figure = ground_and_figure(lab)
    border = np.broadcast_to(border_mask(), figure.shape)
    energy = _energies(lab[..., 0])  # (N, K, H, W)
    flat = energy.reshape(N, len(energy[0]), -1)
    mean = flat.mean(axis=2)
    peaks = np.square(flat).mean(axis=2) / (np.square(mean) + 1e-9)
    cells = SIDE // POOL
    inner = energy[..., : cells * POOL, : cells * POOL]
    local = inner.reshape(N, -1, cells, POOL, cells, POOL).mean(axis=(3, 5))
    parts = [
        *(np.log(_weighted(flat, area) + 1e-6) for area in (figure, border)),
        np.log(local + 1e-5).reshape(N, -1, cells * cells).std(axis=2),
        np.log(peaks + 1e-3),
    ]
    return np.concatenate(parts, axis=1)


def _energies(plane: Float) -> Float:
    """Squared filter responses (N, K, H, W) of a plane (N, H, W)."""
    spectrum = fft.rfft2(plane.astype(np.float32))[:, None]
    response = fft.irfft2(spectrum * filter_bank(), s=(SIDE, SIDE))
    energies: Float = np.square(response)
    return energies


def _weighted(flat: Float, area: Float) -> Float:
    means: Float = (flat @ area.reshape(len(area), -1, 1).astype(np.float32))[..., 0]
    return means


def _pixel_statistics(image: Pixels) -> Float:
    """Statistics of the pixels as they are, shares square-rooted."""
    pixels = _pixel_view(image)
    lightness = np.ascontiguousarray(oklab(pixels)[..., 0])
    stride = max(1, len(pixels) // GRADIENT_SIDE)
    dy = np.diff(lightness, axis=0)[::stride, :-1:stride]
    dx = np.diff(lightness, axis=1)[:-1:stride, ::stride]
    tones = np.clip(lightness * NUM_TONES, 0, NUM_TONES - 1).astype(np.int64)
    parts = [
        _flatness(pixels),
        *_gradients(dx, dy),
        *(_local_patterns(lightness, radius, step) for radius, step in PATTERNS),
        _colour_counts(pixels),
        _periods(lightness),
        np.sqrt(np.bincount(tones.ravel(), minlength=NUM_TONES) / tones.size),
    ]
    return np.concatenate(parts).astype(np.float32)


def _pixel_view(image: Pixels) -> Pixels:
    """The centre square, scaled down to INPUT_PX where it is larger."""
    side = min(image.shape[:2])
    top, left = ((length - side) // 2 for length in image.shape[:2])
    square = image[top : top + side, left : left + side]
    if side <= INPUT_PX:
        return square
    scaled = Image.fromarray(square).resize((INPUT_PX, INPUT_PX), Image.Resampling.BOX)
    return np.asarray(scaled)


def _flatness(pixels: Pixels) -> Float:
    """Share of pixels that with the next ones span at most each of FLAT_STEPS."""
    here, right, below = pixels[:-1, :-1], pixels[:-1, 1:], pixels[1:, :-1]
    high, low = (pick(pick(here, right), below) for pick in (np.maximum, np.minimum))
    step = (high - low).max(axis=2)
    reached = np.cumsum(np.bincount(step.ravel(), minlength=256)) / step.size
    shares: Float = reached[list(FLAT_STEPS)]
    return shares


def _gradients(dx: Float, dy: Float) -> tuple[Float, Float]:
    """Strengths of the edges that are there, and their directions."""
    strength = np.hypot(dx, dy)
    edges = np.log(strength[strength > np.exp(GRADIENT_BINS[0])])
    counts = np.histogram(edges, bins=GRADIENT_BINS)[0] + 0.5
    angle = (np.mod(np.arctan2(dy, dx), np.pi) * (NUM_ANGLES / np.pi)).astype(np.int64)
    turns = np.bincount(angle.ravel() % NUM_ANGLES, strength.ravel(), NUM_ANGLES) + 0.01
    return np.sqrt(counts / counts.sum()), np.sqrt(turns / turns.sum())


def _pattern_classes() -> NDArray[np.int64]:
    """(256,) class of each 8-bit ring: its number of ones if they hang together, else 9."""
    bits = (np.arange(256)[:, None] >> np.arange(8)) & 1
    changes = (bits != np.roll(bits, 1, axis=1)).sum(axis=1)
    classes: NDArray[np.int64] = np.where(changes <= 2, bits.sum(axis=1), 9)
    return classes


_PATTERN_CLASSES = _pattern_classes()


def _local_patterns(lightness: Float, radius: int, step: float) -> Float:
    """Rotation-invariant uniform local patterns (Ojala et al. 2002), brighter and darker: (20,).

    As in local ternary patterns (Tan and Triggs 2010), a neighbour counts where it differs from
    the centre by more than ``step``.
    """
    r = radius
    centre = lightness[r:-r, r:-r]
    height, width = centre.shape
    brighter = np.zeros(centre.shape, np.uint8)
    darker = np.zeros(centre.shape, np.uint8)
    high, low = centre + np.float32(step), centre - np.float32(step)
    ring = ((0, 1), (0, 2), (1, 2), (2, 2), (2, 1), (2, 0), (1, 0), (0, 0))
    for bit, (down, right) in enumerate(ring):
        top, left = down * r, right * r
        other = lightness[top : top + height, left : left + width]
        brighter |= (other > high).astype(np.uint8) << np.uint8(bit)
        darker |= (other < low).astype(np.uint8) << np.uint8(bit)
    counts = [
        np.bincount(_PATTERN_CLASSES, np.bincount(rings.ravel(), minlength=256), 10)
        for rings in (brighter, darker)
    ]
    return np.sqrt(np.concatenate(counts) / centre.size)


def _colour_counts(pixels: Pixels) -> Float:
    """How many colours there are, of 5 bits a channel, and how much the most frequent ones fill."""
    steps = pixels.astype(np.int32) >> 3
    code = (steps[..., 0] << 10) | (steps[..., 1] << 5) | steps[..., 2]
    counts = np.bincount(code.ravel())
    share = np.sort(counts[counts > 0])[::-1] / code.size
    filled = np.cumsum(share)
    return np.array(
        [
            np.log(len(share) / np.sqrt(code.size)),
            -(share * np.log(share)).sum(),
            *(filled[min(rank, len(filled) - 1)] for rank in COLOUR_RANKS),
        ]
    )


def _periods(lightness: Float) -> Float:
    """Autocorrelation of the edges' columns and rows: peaks where there is a pixel grid."""
    total = np.zeros(MAX_PERIOD)
    for axis in (0, 1):
        profile = np.abs(np.diff(lightness, axis=1 - axis)).mean(axis=axis)
        profile = profile - profile.mean()
        power = float(profile @ profile)
        if power > 1e-8:
            total += [profile[k:] @ profile[:-k] / power for k in range(1, MAX_PERIOD + 1)]
    halved: Float = (total / 2).astype(np.float32)
    return halved
