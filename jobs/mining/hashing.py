"""Hashes of pixels that survive scaling and recompression."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.fft import dctn

HASH_SIDE = 32
NUM_BITS = 64
THUMBNAIL_SIDE = 8


def perceptual_hash(image: Image.Image) -> int:
    """64 bits: which of the lowest 8 × 8 DCT coefficients of the lightness exceed their median."""
    grey = image.convert("L").resize((HASH_SIDE, HASH_SIDE), Image.Resampling.LANCZOS)
    low = dctn(np.asarray(grey, dtype=np.float32), norm="ortho")[:8, :8].ravel()
    low[0] = 0  # the mean lightness says nothing about the picture
    bits = low > np.median(low)
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def thumbnail(image: Image.Image) -> bytes:
    """8 × 8 RGB thumbnail, row by row: tells recoloured pictures of one hash apart."""
    return image.resize((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.BOX).tobytes()


def hamming(a: NDArray[np.uint64], b: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Number of differing bits."""
    bits: NDArray[np.int64] = np.bitwise_count(a ^ b).astype(np.int64)
    return bits
