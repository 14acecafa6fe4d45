"""Unsafe content."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from jobs.mining.filters.filter import ScoredSamples


@dataclass(frozen=True, slots=True)
class NsfwFilter:
    """Keeps pictures of at most this probability of unsafe content."""

    threshold: float | None
    name: ClassVar[str] = "nsfw"
    reason: ClassVar[str] = "nsfw"

    def passes(self, samples: ScoredSamples) -> NDArray[np.bool_]:
        """Which samples' score is known and low enough."""
        assert self.threshold is not None
        passed: NDArray[np.bool_] = samples.nsfw <= self.threshold
        return passed
