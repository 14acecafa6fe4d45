import pytest
import torch

from i2l_model.flow import add_noise, flow_loss, velocity_target


def test_path_runs_from_data_to_noise_with_the_target_as_slope():
    data, noise = torch.randn(2, 3, 8, 4, 4).unbind(0)
    assert torch.equal(add_noise(data, noise, torch.zeros(3)), data)
    assert torch.equal(add_noise(data, noise, torch.ones(3)), noise)
    low, high = torch.full((3,), 0.25), torch.full((3,), 0.75)
    slope = (add_noise(data, noise, high) - add_noise(data, noise, low)) / 0.5
    torch.testing.assert_close(slope, velocity_target(data, noise))


def test_every_sample_has_its_own_noise_level():
    data, noise = torch.zeros(2, 1, 2, 2), torch.ones(2, 1, 2, 2)
    latents = add_noise(data, noise, torch.tensor([0.1, 0.9]))
    assert latents[:, 0, 0, 0].tolist() == pytest.approx([0.1, 0.9])


def test_loss_is_per_sample_weighted_and_zero_at_the_target():
    data, noise = torch.randn(2, 4, 8, 4, 4).unbind(0)
    velocity = velocity_target(data, noise)
    velocity[1] += 2
    assert flow_loss(velocity, data, noise).tolist() == pytest.approx([0, 4, 0, 0], abs=1e-6)
    weights = torch.tensor([1.0, 0.5, 1.0, 1.0])
    assert flow_loss(velocity, data, noise, weights)[1].item() == pytest.approx(2, abs=1e-6)


def test_loss_of_half_precision_is_computed_in_float32():
    data = torch.zeros(1, 1, 64, 64)
    velocity = torch.full((1, 1, 64, 64), 300.0, dtype=torch.float16)
    loss = flow_loss(velocity, data, data)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(90000)
