"""Synthetic style vectors that cluster as a corpus does.

A style is a point near that of its family, and its images lie around it. Random vectors without
such clusters would have no near neighbours: all cosines alike, and recall without a meaning.
"""

import numpy as np
from numpy.typing import NDArray

IMAGES_PER_STYLE = 50
STYLES_PER_FAMILY = 40
_STYLE_SPREAD, _IMAGE_SPREAD = 0.8, 0.8


def unit(vectors: NDArray[np.floating]) -> NDArray[np.float32]:
    """Rows of length one."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / lengths).astype(np.float32)


def style_vectors(
    count: int, dim: int, seed: int = 0, rows: slice = slice(None)
) -> NDArray[np.float16]:
    """Some ``rows`` of ``count`` unit vectors, in an order that mixes the styles.

    Centres and the styles of the rows follow from the seed and ``count``, so that slices are of
    one corpus; the images in a slice also depend on where it begins.
    """
    num_styles = max(count // IMAGES_PER_STYLE, 1)
    rng = np.random.default_rng([seed, 0])
    families = unit(rng.normal(size=(-(-num_styles // STYLES_PER_FAMILY), dim)))
    family = rng.integers(len(families), size=num_styles)
    spread = _STYLE_SPREAD * rng.standard_normal((num_styles, dim), np.float32)
    styles = unit(families[family] + spread / np.sqrt(dim))
    numbers = range(count)[rows]
    style = rng.integers(num_styles, size=count)[rows]
    noise = np.random.default_rng([seed, 1, numbers.start]).standard_normal(
        (len(numbers), dim), np.float32
    )
    return unit(styles[style] + _IMAGE_SPREAD * noise / np.sqrt(dim)).astype(np.float16)
