import math

import numpy as np
import torch

from jobs.evaluation.metrics.kernel_distance import kernel_distance, latent_features

STYLES = [f"s{index // 8}" for index in range(96)]


def features(shift: float, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(shift, 1.0, size=(96, 32))


def test_equal_distributions_are_at_about_zero():
    found = kernel_distance(features(0, 1), STYLES, features(0, 2), num_samples=200)
    assert abs(found.mean) < 0.05
    assert found.lo <= found.mean <= found.hi
    assert (found.n, found.num_styles) == (96, 12)


def test_distance_rises_with_the_shift():
    values = [
        kernel_distance(features(shift, 1), STYLES, features(0, 2), num_samples=200).mean
        for shift in (0.0, 0.3, 0.6, 1.0)
    ]
    assert values == sorted(values)
    assert values[-1] > 1


def test_intervals_overlap_for_equal_distributions_and_not_for_others():
    near = kernel_distance(features(0, 1), STYLES, features(0, 2), num_samples=200)
    far = kernel_distance(features(1, 3), STYLES, features(0, 2), num_samples=200)
    assert near.hi < far.lo


def test_broken_features_give_no_number():
    broken = features(0, 1)
    broken[3, 3] = math.nan
    assert math.isnan(kernel_distance(broken, STYLES, features(0, 2)).mean)


def test_features_keep_coarse_layout():
    latents = torch.randn(2, 8, 16, 16)
    assert latent_features(latents).shape == (2, 8 * 16)
