"""Licences that allow training."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from jobs.mining.filters.filter import ScoredSamples


@dataclass(frozen=True, slots=True)
class LicenceFilter:
    """Keeps pictures whose licence is on the list, by exact name."""

    threshold: tuple[str, ...] | None
    name: ClassVar[str] = "licence"
    reason: ClassVar[str] = "licence_not_allowed"

    def passes(self, samples: ScoredSamples) -> NDArray[np.bool_]:
        """Which samples have an allowed licence."""
        assert self.threshold is not None
        allowed = np.array([name in self.threshold for name in samples.licences], dtype=bool)
        return allowed[samples.licence] if len(allowed) else np.zeros(len(samples.licence), bool)
