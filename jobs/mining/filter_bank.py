"""Log-Gabor filters that read textures and lines at several scales and orientations."""

from functools import cache

import numpy as np

from jobs.mining.perception import SIDE, Float

SCALES = (0.40, 0.28, 0.18, 0.11)  # cycles per pixel
NUM_ORIENTATIONS = 6


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
