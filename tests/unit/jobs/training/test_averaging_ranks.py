"""Averages of two ranks, whose optimizers hold a part of the weights each."""

import copy
import os
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import multiprocessing, nn

from jobs.training.averaging import WeightAverage
from jobs.training.config import TrainingConfig
from jobs.training.deepspeed_config import create_engine, optimizer_step, set_learning_rate

pytestmark = pytest.mark.slow

WORLD_SIZE = 2
DECAY = 0.9


class Model(nn.Module):
    """Sizes that no number of ranks divides; the cut goes through a weight."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 7))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.layers(inputs).float().square().mean()


def train_rank(rank: int, rendezvous: str, config: TrainingConfig) -> None:
    os.environ["LOCAL_RANK"] = str(rank)
    dist.init_process_group(
        "gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=WORLD_SIZE
    )
    torch.set_num_threads(1)
    for zero_stage in (1, 2, 3):
        check_stage(rank, config.model_copy(update={"zero_stage": zero_stage}))
    dist.destroy_process_group()


def check_stage(rank: int, config: TrainingConfig) -> None:
    from deepspeed.utils import safe_get_full_fp32_param

    engine = create_engine(Model().bfloat16(), config, "cpu")
    average = WeightAverage(engine, DECAY)
    masters = {n: safe_get_full_fp32_param(p) for n, p in average.parameters.items()}
    expected = copy.deepcopy(masters)
    for step in range(1, 4):
        set_learning_rate(engine, 1e-3)
        engine.backward(engine(torch.full((2, 3), 1.0 + rank, dtype=torch.bfloat16)))
        optimizer_step(engine)
        average.update()
        decay = min(DECAY, (1 + step) / (10 + step))
        for name, parameter in average.parameters.items():
            expected[name] = torch.lerp(
                expected[name], safe_get_full_fp32_param(parameter), 1 - decay
            )
    state = average.whole_state()
    assert set(state) == (set(expected) if rank == 0 else set())
    for name, whole in expected.items():
        torch.testing.assert_close(average.whole(name), whole, rtol=0, atol=1e-7)
    assert not torch.equal(expected["layers.0.weight"], masters["layers.0.weight"])
    check_applied(engine, average, expected)
    average.load({name: whole + 1 for name, whole in expected.items()}, 7)
    for name, whole in expected.items():
        torch.testing.assert_close(average.whole(name), whole + 1, rtol=0, atol=1e-7)


def check_applied(
    engine: nn.Module, average: WeightAverage, expected: dict[str, torch.Tensor]
) -> None:
    model = Model().bfloat16()
    model.load_state_dict(expected)
    inputs = torch.ones(1, 3, dtype=torch.bfloat16)
    with torch.no_grad():
        before = engine(inputs)
        with average.applied():
            assert torch.equal(engine(inputs), model(inputs))
        assert torch.equal(engine(inputs), before)
        assert not torch.equal(before, model(inputs))


def test_pieces_of_the_average_make_up_the_whole(tmp_path: Path, config: TrainingConfig) -> None:
    settings = config.model_copy(update={"precision": "bf16", "num_workers": WORLD_SIZE})
    multiprocessing.spawn(
        train_rank, args=(str(tmp_path / "rendezvous"), settings), nprocs=WORLD_SIZE
    )
