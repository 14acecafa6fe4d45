"""Kernel distance (KID) of sample features to features of real corpus pictures.

Binkowski et al. 2018, with VAE latents pooled to 4x4 in place of Inception features: the squared
maximum mean discrepancy under the cubic polynomial kernel, unbiased, 0 for equal distributions.
"""

# M samples, N real pictures, D features, S styles, R resamples

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from jobs.evaluation.bootstrap import Array, Estimate, percentile_interval, resample_weights

POOLED_CELLS = 4


def latent_features(latents_BCHW: Tensor) -> Tensor:
    """(B,D) VAE latents pooled to 4x4 cells."""
    return F.adaptive_avg_pool2d(latents_BCHW.float(), POOLED_CELLS).flatten(1)


def kernel_distance(
    samples_MD: Array,
    sample_styles: Sequence[str],
    real_ND: Array,
    *,
    num_samples: int = 1000,
    seed: int = 0,
) -> Estimate:
    """KID with an interval over the sample's styles; NaN with fewer than two of either."""
    names = sorted(set(sample_styles))
    if len(samples_MD) < 2 or len(real_ND) < 2 or not np.isfinite(samples_MD).all():
        return Estimate(math.nan, math.nan, math.nan, len(samples_MD), len(names))
    mean, spread = real_ND.mean(0), real_ND.std(0) + 1e-6
    samples, real = (samples_MD - mean) / spread, (real_ND - mean) / spread
    within, across = _cubic(samples, samples), _cubic(samples, real).mean(1)
    constant = _mean_off_diagonal(_cubic(real, real))
    np.fill_diagonal(within, 0.0)
    membership = np.array([[float(style == name) for style in sample_styles] for name in names])

    def distance(weights_RS: Array) -> Array:
        weights_RM = weights_RS @ membership
        total = weights_RM.sum(1)
        # A style drawn twice brings each sample twice: those twins are no pairs either, and
        # their kernel values were zeroed with the diagonal.
        pairs = total**2 - (weights_RM**2).sum(1)
        inner = np.einsum("rm,mn,rn->r", weights_RM, within, weights_RM) / pairs
        return np.asarray(inner - 2 * (weights_RM @ across) / total + constant)

    point = float(distance(np.ones((1, len(names))))[0])
    draws = distance(resample_weights(len(names), num_samples=num_samples, seed=seed))
    lo, hi = percentile_interval(draws[np.isfinite(draws)])
    return Estimate(point, lo, hi, len(samples_MD), len(names))


def _cubic(left: Array, right: Array) -> Array:
    return np.asarray((left @ right.T / left.shape[1] + 1.0) ** 3)


def _mean_off_diagonal(matrix: Array) -> float:
    size = len(matrix)
    return float((matrix.sum() - np.trace(matrix)) / (size * (size - 1)))
