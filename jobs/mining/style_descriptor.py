"""Offline style encoder: picture statistics, compared by what drawn styles hold constant."""

from collections.abc import Sequence

import numpy as np

from i2l_model.assets import asset_path
from jobs.mining.perception import Float, Pixels
from jobs.mining.style_metric import StyleMetric
from jobs.mining.style_statistics import INPUT_PX, statistics

METRIC_ASSET = "style-metric"
_CHUNK = 32  # images whose filter responses are held at a time


class OfflineStyleEncoder:
    """Encoder(images, captions) → (N, D) float32, L2-normalised; captions are not read."""

    name = "offline-style"
    input_px = INPUT_PX

    def __init__(self) -> None:
        self._metric = StyleMetric.load(asset_path(METRIC_ASSET))

    def __call__(self, images: Sequence[Pixels], captions: Sequence[str]) -> Float:
        """Describe N images, each (h, w, 3) uint8 sRGB of any size."""
        del captions
        parts = [
            statistics(images[start : start + _CHUNK]) for start in range(0, len(images), _CHUNK)
        ]
        return self._metric(np.concatenate(parts))
