import math

import pytest
import torch

from jobs.evaluation.metrics.quality import contrast, failed_samples, log_ratio_errors, sharpness


def noise(scale: float) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return (0.5 + scale * torch.randn(1, 3, 32, 32, generator=generator)).clamp(0, 1)


def test_flat_and_broken_samples_fail_and_a_dim_drawing_does_not():
    flat = torch.full((1, 3, 32, 32), 0.4)
    broken = noise(0.2)
    broken[0, 0, 0, 0] = math.nan
    dim = flat.clone()
    dim[:, :, 8:24, 8:24] += 0.05
    assert failed_samples(torch.cat([flat, broken, dim, noise(0.2)])) == [True, True, False, False]


def test_blur_lowers_sharpness_and_leaves_its_mark_on_the_error():
    sharp = noise(0.1)
    blurred = torch.nn.functional.avg_pool2d(sharp, 3, 1, 1)
    assert sharpness(blurred) < 0.5 * sharpness(sharp)
    assert log_ratio_errors(sharpness(sharp), sharpness(sharp)) == [0.0]
    assert log_ratio_errors(sharpness(blurred), sharpness(sharp))[0] > 0.5


def test_twice_as_much_is_as_wrong_as_half():
    values = torch.tensor([20.0, 5.0])
    left, right = log_ratio_errors(values, torch.tensor([10.0, 10.0]))
    assert left == pytest.approx(right, rel=1e-3)


def test_contrast_follows_amplitude():
    assert contrast(noise(0.1)) == pytest.approx(2 * contrast(noise(0.05)), rel=0.02)
