"""What mining found, before it is written."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jobs.mining.components import Styles
from jobs.mining.cut import Cut, Edges
from jobs.mining.selection import Selection


@dataclass(frozen=True, slots=True)
class MinedPairs:
    """Images are numbered 0 to M - 1 here.

    Attributes:
        rows: (M,) sample row of each image.
        content: (M, D) content vectors; may be a mapped file.
        edges: All candidate links.
        cut: The threshold on their scores.
        styles: The styles that hold together above it.
        selection: The pairs.
        names: Style id by style number.
        splits: Split by style id, for styles with pairs.
    """

    rows: NDArray[np.int64]
    content: NDArray[np.floating]
    edges: Edges
    cut: Cut
    styles: Styles
    selection: Selection
    names: list[str]
    splits: dict[str, str]
