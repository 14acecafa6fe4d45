"""What filters read, and what a filter is."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

# M samples


class ScoredSamples(Protocol):
    """Columns of M samples; scores are NaN where not known."""

    @property
    def opt_out(self) -> NDArray[np.bool_]:
        """(M,) whether the owner opted out."""
        ...

    @property
    def licence(self) -> NDArray[np.integer]:
        """(M,) number in ``licences``."""
        ...

    @property
    def licences(self) -> Sequence[str]:
        """The names of the licences, "" for unknown."""
        ...

    @property
    def aesthetic(self) -> NDArray[np.float32]:
        """(M,) 0 to 10."""
        ...

    @property
    def watermark(self) -> NDArray[np.float32]:
        """(M,) probability."""
        ...

    @property
    def nsfw(self) -> NDArray[np.float32]:
        """(M,) probability."""
        ...

    def is_kept(self) -> NDArray[np.bool_]:
        """(M,) whether nothing has dropped the sample so far."""
        ...

    def drop(self, rows: NDArray[np.bool_], reason: str) -> None:
        """Give the samples of the mask ``rows`` (M,) this reason."""
        ...


class Filter(Protocol):
    """A threshold on a score; None switches it off."""

    @property
    def name(self) -> str:
        """The score."""
        ...

    @property
    def reason(self) -> str:
        """Slug under which its drops are counted."""
        ...

    @property
    def threshold(self) -> object:
        """The setting, None for off."""
        ...

    def passes(self, samples: ScoredSamples) -> NDArray[np.bool_]:
        """(M,) which samples meet the threshold; called only where there is one."""
        ...
