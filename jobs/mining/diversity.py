"""How evenly images are used, and how unlike in content the images of a style are.

Shapes: M images, D content dimensions.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

VENDI_IMAGES = 8
_VENDI_STYLES = 256
_RANDOM_PAIRS = 20_000
_ROWS_A_CHUNK = 4096


@dataclass(frozen=True, slots=True)
class Vendi:
    """Vendi scores: the effective number of unlike contents among ``num_images`` images.

    Attributes:
        num_images: Images drawn from a style; styles with fewer do not count.
        num_styles: Styles that were looked at.
        mean: Mean over styles, 1 (all alike) to ``num_images`` (all unlike).
        random: The same for images drawn from anywhere.
    """

    num_images: int
    num_styles: int
    mean: float
    random: float


def gini(uses: ArrayLike) -> float:
    """Gini coefficient: 0 when all images are used equally often, towards 1 when few carry all."""
    ordered = np.sort(np.asarray(uses, dtype=np.float64))
    n = len(ordered)
    if not n or ordered.sum() == 0:
        return 0.0
    rank = np.arange(1, n + 1)
    return float(2 * (rank * ordered).sum() / (n * ordered.sum()) - (n + 1) / n)


def vendi_score(content_MD: NDArray[np.floating]) -> float:
    """Exponential of the entropy of the eigenvalues of the cosine kernel (Friedman and Dieng 2022,
    arXiv 2210.02410); the rows are of unit length.
    """  # noqa: D205
    vectors = np.asarray(content_MD, dtype=np.float64)
    values = np.linalg.eigvalsh(vectors @ vectors.T / len(vectors))
    values = values[values > 1e-12]
    return float(np.exp(-(values * np.log(values)).sum()))


def style_vendi(
    content_MD: NDArray[np.floating], members: Sequence[NDArray[np.int64]], seed: int
) -> Vendi:
    """Vendi score inside styles, at the same number of images for each, beside random images."""
    rng = np.random.default_rng(seed)
    large = [number for number, rows in enumerate(members) if len(rows) >= VENDI_IMAGES]
    drawn = sorted(rng.permutation(len(large))[:_VENDI_STYLES].tolist())
    inside, outside = [], []
    everyone = np.concatenate(members) if members else np.zeros(0, dtype=np.int64)
    for place in drawn:
        rows = rng.permutation(members[large[place]])[:VENDI_IMAGES]
        inside.append(vendi_score(content_MD[np.sort(rows)]))
        rows = everyone[rng.choice(len(everyone), VENDI_IMAGES, replace=False)]
        outside.append(vendi_score(content_MD[np.sort(rows)]))
    if not inside:
        return Vendi(VENDI_IMAGES, 0, 0.0, 0.0)
    return Vendi(VENDI_IMAGES, len(inside), float(np.mean(inside)), float(np.mean(outside)))


def same_style_distance(
    content_MD: NDArray[np.floating], members: Sequence[NDArray[np.int64]], seed: int
) -> float:
    """Mean content distance (1 - cosine) of random pairs of one style; 0 without any.

    Every image is as likely as every other, so that large styles weigh more.
    """
    rows = np.concatenate(members) if members else np.zeros(0, dtype=np.int64)
    sizes = np.array([len(m) for m in members], dtype=np.int64)
    if not len(rows):
        return 0.0
    start = np.repeat(np.cumsum(sizes) - sizes, sizes)
    size = np.repeat(sizes, sizes)
    rng = np.random.default_rng(seed)
    first = rng.integers(len(rows), size=_RANDOM_PAIRS)
    second = start[first] + (rng.random(_RANDOM_PAIRS) * size[first]).astype(np.int64)
    differ = first != second
    if not differ.any():
        return 0.0
    return float(1 - pair_cosines(content_MD, rows[first[differ]], rows[second[differ]]).mean())


def pair_cosines(
    content_MD: NDArray[np.floating], first: NDArray[np.int64], second: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Cosines of pairs of rows; the vectors may lie in a file."""
    found = [np.zeros(0)]
    for at in range(0, len(first), _ROWS_A_CHUNK):
        part = slice(at, at + _ROWS_A_CHUNK)
        a = np.asarray(content_MD[first[part]], dtype=np.float64)
        b = np.asarray(content_MD[second[part]], dtype=np.float64)
        found.append(np.einsum("md,md->m", a, b))
    return np.concatenate(found)
