"""Aesthetic scores, which are biased against sketches and flat art: set the limit low for those."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from jobs.mining.filters.filter import ScoredSamples


@dataclass(frozen=True, slots=True)
class AestheticFilter:
    """Keeps pictures of at least this aesthetic score, 0 to 10."""

    threshold: float | None
    name: ClassVar[str] = "aesthetic"
    reason: ClassVar[str] = "low_aesthetic"

    def passes(self, samples: ScoredSamples) -> NDArray[np.bool_]:
        """Which samples' score is known and high enough."""
        assert self.threshold is not None
        passed: NDArray[np.bool_] = samples.aesthetic >= self.threshold
        return passed
