import pytest
import torch

from jobs.evaluation.metrics.colour import masked_moments, moment_distance, rgb_to_lab


@pytest.mark.parametrize(
    ("rgb", "lab"),
    [
        ((1.0, 1.0, 1.0), (100.0, 0.0, 0.0)),
        ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0)),
        ((1.0, 0.0, 0.0), (53.24, 80.09, 67.20)),
        ((0.0, 0.0, 1.0), (32.30, 79.19, -107.86)),
        ((0.5, 0.5, 0.5), (53.39, 0.0, 0.0)),
    ],
)
def test_known_colours(rgb, lab):
    found = rgb_to_lab(torch.tensor(rgb).view(1, 3, 1, 1)).flatten().tolist()
    assert found == pytest.approx(lab, abs=0.06)


def test_moments_ignore_what_lies_outside():
    image = torch.rand(1, 3, 8, 8)
    mask = torch.zeros(1, 8, 8, dtype=torch.bool)
    mask[:, :4] = True
    changed = image.clone()
    changed[:, :, 4:] = 1.0
    for left, right in zip(masked_moments(image, mask), masked_moments(changed, mask), strict=True):
        assert torch.equal(left, right)


def test_same_mean_with_other_spread_is_a_difference():
    mask = torch.ones(1, 8, 8, dtype=torch.bool)
    flat = torch.full((1, 3, 8, 8), 50.0)
    spread = flat.clone()
    spread[:, :, ::2] += 20
    spread[:, :, 1::2] -= 20
    assert moment_distance(spread, flat, mask).item() > 0.2
