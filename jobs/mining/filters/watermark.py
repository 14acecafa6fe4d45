"""Watermarks, which a style LoRA would learn as part of the style."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from jobs.mining.filters.filter import ScoredSamples


@dataclass(frozen=True, slots=True)
class WatermarkFilter:
    """Keeps pictures of at most this watermark probability."""

    threshold: float | None
    name: ClassVar[str] = "watermark"
    reason: ClassVar[str] = "watermark"

    def passes(self, samples: ScoredSamples) -> NDArray[np.bool_]:
        """Which samples' score is known and low enough."""
        assert self.threshold is not None
        passed: NDArray[np.bool_] = samples.watermark <= self.threshold
        return passed
