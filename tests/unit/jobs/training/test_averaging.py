from types import SimpleNamespace

import pytest
import torch
from torch import nn

from jobs.training.averaging import WeightAverage

pytestmark = pytest.mark.usefixtures("process_group")


def build(decay: float) -> tuple[nn.Linear, WeightAverage]:
    module = nn.Linear(1, 1, bias=False)
    nn.init.constant_(module.weight, 0.0)
    return module, WeightAverage(SimpleNamespace(module=module), decay)


def test_the_average_follows_with_a_decay_that_grows_to_its_limit() -> None:
    module, average = build(decay=0.5)
    expected = 0.0
    for step in range(1, 30):
        nn.init.constant_(module.weight, float(step))
        average.update()
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
        torch.testing.assert_close(average.whole("weight").item(), expected)


def test_the_trained_weights_come_back_after_the_block() -> None:
    module, average = build(decay=0.9)
    nn.init.constant_(module.weight, 2.0)
    with average.applied():
        assert module.weight.item() == 0.0
    assert module.weight.item() == 2.0


def test_frozen_parameters_are_not_averaged() -> None:
    module = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1).requires_grad_(False))
    average = WeightAverage(SimpleNamespace(module=module), 0.9)
    assert set(average.whole_state()) == {"0.weight", "0.bias"}


def test_a_restored_average_goes_on_as_the_old_one() -> None:
    module, average = build(decay=0.99)
    other_module, other = build(decay=0.99)
    for step in range(5):
        nn.init.constant_(module.weight, float(step))
        average.update()
    other.load(average.whole_state(), average.num_updates)
    nn.init.constant_(module.weight, 7.0)
    nn.init.constant_(other_module.weight, 7.0)
    average.update()
    other.update()
    assert torch.equal(average.whole("weight"), other.whole("weight"))


def test_bfloat16_weights_are_averaged_in_float32() -> None:
    module = nn.Linear(1, 1, bias=False).bfloat16()
    nn.init.constant_(module.weight, 1.0)
    average = WeightAverage(SimpleNamespace(module=module), 0.999)
    nn.init.constant_(module.weight, 1.0078125)
    average.num_updates = 10_000
    average.update()
    value = average.whole("weight")
    assert value.dtype == torch.float32
    assert 1.0 < value.item() < 1.0001
