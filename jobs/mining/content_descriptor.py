"""Offline content encoder: the de-styled caption's words, and the shape of the figure.

The caption block hashes the head noun and the other content words into a signed vector; the shape
block holds the figure's layout and the orientation of its contours, which a change of palette or
texture leaves mostly alone. Images without a caption are compared by shape only.

Shapes: N images, H = W = SIDE pixels, D descriptor.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from jobs.mining.captions import CaptionContent, read_caption
from jobs.mining.perception import SIDE, Float, Pixels, ground_and_figure, oklab, squared

INPUT_PX = SIDE
CAPTION_WEIGHT = 0.6
NUM_HASHES = 256
HEAD_WEIGHT = 2.0
LAYOUT_CELLS = 8
CONTOUR_CELLS = 4
NUM_ORIENTATIONS = 8


class OfflineContentEncoder:
    """Encoder(images, captions) → (N, D) float32, L2-normalised."""

    name = "offline-content"
    input_px = INPUT_PX

    def __call__(self, images: Sequence[Pixels], captions: Sequence[str]) -> Float:
        """Describe N images, each (h, w, 3) uint8 sRGB of any size, with their captions."""
        lab = oklab(np.stack([squared(image) for image in images]))
        _, figure = ground_and_figure(lab)
        solid = np.clip(figure / figure.max(axis=(1, 2), keepdims=True) * 2, 0, 1)
        solid = ndimage.gaussian_filter(solid, sigma=(0, 1, 1))
        shape = np.concatenate([_layout(solid), _contours(solid)], axis=1) / np.sqrt(2)
        words = np.stack([caption_vector(read_caption(caption)) for caption in captions])
        parts = [np.sqrt(CAPTION_WEIGHT) * words, np.sqrt(1 - CAPTION_WEIGHT) * shape]
        return _unit(np.concatenate(parts, axis=1)).astype(np.float32)


def caption_vector(content: CaptionContent) -> Float:
    """Signed feature hashing of a caption's words to (NUM_HASHES,), unit length or zero."""
    vector = np.zeros(NUM_HASHES, dtype=np.float32)
    for word in dict.fromkeys(content.words):
        digest = hashlib.sha256(word.encode()).digest()
        for pair in (digest[0:3], digest[3:6]):  # two places each, so that one clash weighs less
            place = int.from_bytes(pair[:2], "big") % NUM_HASHES
            weight = HEAD_WEIGHT if word == content.head else 1.0
            vector[place] += weight if pair[2] % 2 else -weight
    length = np.linalg.norm(vector)
    return vector / length if length else vector


def _layout(solid: Float) -> Float:
    """Figure coverage over a grid, its mean taken off: (N, LAYOUT_CELLS²), unit length."""
    cell = SIDE // LAYOUT_CELLS
    grid = solid.reshape(len(solid), LAYOUT_CELLS, cell, LAYOUT_CELLS, cell).mean(axis=(2, 4))
    rows = grid.reshape(len(solid), -1)
    return _unit(rows - rows.mean(axis=1, keepdims=True))


def _contours(solid: Float) -> Float:
    """Contour orientations over a coarse grid, square-rooted and centred, unit length."""
    dy, dx = np.gradient(solid, axis=(1, 2))
    strength = np.hypot(dx, dy)
    turn = np.mod(np.arctan2(dy, dx), np.pi) / np.pi * NUM_ORIENTATIONS
    cell = SIDE // CONTOUR_CELLS
    histograms = []
    for k in range(NUM_ORIENTATIONS):
        distance = np.abs(turn - k)
        share = np.clip(1 - np.minimum(distance, NUM_ORIENTATIONS - distance), 0, 1) * strength
        cells = share.reshape(len(solid), CONTOUR_CELLS, cell, CONTOUR_CELLS, cell)
        histograms.append(cells.sum(axis=(2, 4)).reshape(len(solid), -1))
    rows = np.sqrt(np.concatenate(histograms, axis=1))
    return _unit(rows - rows.mean(axis=1, keepdims=True))


def _unit(rows: Float) -> Float:
    unit: Float = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-8)
    return unit
