"""Aspect buckets: the few sizes that target images are brought to, each to the nearest in shape."""

# U distinct images

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from jobs.training.pair_index import ImagePlaces


@dataclass(frozen=True, slots=True)
class Buckets:
    """The size of each target.

    Attributes:
        sizes: Width and height of each bucket in pixels.
        numbers_U: Bucket of each target.
    """

    sizes: list[tuple[int, int]]
    numbers_U: np.ndarray

    def size(self, row: int) -> tuple[int, int]:
        """Width and height in pixels that a target is brought to."""
        return self.sizes[int(self.numbers_U[row])]


def assign_buckets(places: ImagePlaces, sizes: Sequence[tuple[int, int]]) -> Buckets:
    """Give each image the bucket whose aspect ratio is nearest to its own.

    Args:
        places: The images.
        sizes: Width and height of each bucket in pixels.
    """
    wanted = np.log([width / height for width, height in sizes])
    own_U = np.log(places.widths_U / places.heights_U)
    return Buckets(list(sizes), np.abs(own_U[:, None] - wanted).argmin(axis=1))
