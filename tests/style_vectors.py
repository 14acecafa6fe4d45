"""Synthetic style vectors that cluster as a corpus does.

Styles lie around their family's centre, of uneven sizes, in a space of few dimensions, where
families run into each other; images lie around their style in all dimensions. Isotropic random
vectors would have no near neighbours, and clusters apart would be found by any partition: recall
would mean nothing in both cases.
"""

import numpy as np
from numpy.typing import NDArray

IMAGES_PER_STYLE = 50
STYLES_PER_FAMILY = 40
_LATENT_DIM = 64
_STYLE_SPREAD, _IMAGE_SPREAD = 0.8, 0.8  # lengths, beside centres of length one


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
    latent = min(_LATENT_DIM, dim)
    num_families = -(-num_styles // STYLES_PER_FAMILY)
    scale = 1 / np.sqrt(1 + np.arange(latent, dtype=np.float32))
    families = unit(scale * rng.standard_normal((num_families, latent), np.float32))
    share = 1 / np.sqrt(1 + np.arange(num_families))
    family = rng.choice(num_families, size=num_styles, p=share / share.sum())
    spread = unit(scale * rng.standard_normal((num_styles, latent), np.float32))
    basis = np.linalg.qr(rng.standard_normal((dim, latent)))[0].astype(np.float32)
    styles = unit(families[family] + _STYLE_SPREAD * spread) @ basis.T
    numbers = range(count)[rows]
    style = rng.integers(num_styles, size=count)[rows]
    noise = np.random.default_rng([seed, 1, numbers.start]).standard_normal(
        (len(numbers), dim), np.float32
    )
    return unit(styles[style] + _IMAGE_SPREAD * noise / np.sqrt(dim)).astype(np.float16)
