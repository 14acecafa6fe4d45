"""Colour histograms in OKLab: what a miner that only sees colours would compare."""

import numpy as np

from jobs.mining.perception import Float

LIGHTNESS_BINS, CHROMA_BINS = 8, 7
CHROMA_SPAN = 0.5  # OK a and b outside +-0.25 fall into the last bin


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
