"""Which differences between style statistics matter: learned on drawn styles, shipped as numbers.

Statistics vary inside a style, with what is shown and, where the style allows it, with the
palette. The covariance of this variation, pooled over labelled styles, is whitened away (WCCN,
Hatch et al. 2006), so that the cosine compares what a style holds constant.

Shapes: N images, D statistics.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from jobs.mining.perception import Float

FILE_NAME = "model.safetensors"
SHRINKAGE = 0.005  # of the within-style covariance, towards a multiple of the identity
LIMIT = 4.0  # standard deviations beyond which a statistic counts no further
_MIN_SCALE = 1e-3


@dataclass(frozen=True, slots=True)
class StyleMetric:
    """Maps statistics (N, D) to unit vectors (N, D).

    Attributes:
        mean: (D,) of the drawn styles.
        scale: (D,) their standard deviation.
        whiten: (D, D) inverse square root of the within-style covariance of what is left.
        centre: (D,) mean after scaling and limiting.
    """

    mean: Float
    scale: Float
    whiten: Float
    centre: Float

    def __call__(self, statistics: Float) -> Float:
        """Unit rows whose cosine says how alike two styles are."""
        rows = (limited((statistics - self.mean) / self.scale) - self.centre) @ self.whiten
        lengths = np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-8)
        unit: Float = (rows / lengths).astype(np.float32)
        return unit

    def save(self, folder: Path) -> None:
        """Write ``model.safetensors``."""
        names = ("mean", "scale", "whiten", "centre")
        save_file({name: getattr(self, name) for name in names}, folder / FILE_NAME)

    @classmethod
    def load(cls, folder: Path) -> "StyleMetric":
        """Read ``model.safetensors``."""
        return cls(**load_file(folder / FILE_NAME))


def limited(values: Float) -> Float:
    """Values bent to within +-LIMIT, so that no statistic of an unusual picture drowns the rest."""
    bent: Float = LIMIT * np.tanh(values / LIMIT)
    return bent


def fit_metric(statistics: Float, styles: NDArray[np.int64]) -> StyleMetric:
    """Learn the metric from statistics (N, D) of pictures of known style (N,)."""
    mean = statistics.mean(axis=0)
    scale = statistics.std(axis=0) + _MIN_SCALE
    values = limited((statistics - mean) / scale)
    within, num_styles = np.zeros((values.shape[1],) * 2), 0
    for style in np.unique(styles):
        group = values[styles == style]
        if len(group) > 1:
            offset = (group - group.mean(axis=0)).astype(np.float64)
            within += offset.T @ offset / (len(group) - 1)
            num_styles += 1
    within /= num_styles
    power, axes = np.linalg.eigh(within)
    whiten = (axes / np.sqrt(power + SHRINKAGE * power.mean())) @ axes.T
    parts = (mean, scale, whiten, values.mean(axis=0))
    return StyleMetric(*(part.astype(np.float32) for part in parts))
