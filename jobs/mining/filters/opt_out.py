"""Pictures whose owners ask not to be trained on."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from jobs.mining.filters.filter import ScoredSamples


@dataclass(frozen=True, slots=True)
class OptOutFilter:
    """Keeps pictures without an opt-out flag or header."""

    threshold: Literal[True] | None
    name: ClassVar[str] = "opt_out"
    reason: ClassVar[str] = "opt_out"

    def passes(self, samples: ScoredSamples) -> NDArray[np.bool_]:
        """Which samples' owners did not opt out."""
        return ~samples.opt_out
