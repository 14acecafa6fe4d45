"""A training on a GPU: every way to shard it learns the same, in the memory that is estimated."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from i2l_model.backbones.tiny import build_tiny_zimage
from jobs.registry.tracking import TrackingConfig
from jobs.training.config import TrainingConfig
from jobs.training.inputs import TrainingInputs
from jobs.training.job import TrainingJob
from jobs.training.recorder import Recorder
from jobs.training.trained_state import gather_state
from jobs.training.trainer import Trainer
from jobs.training.worker import build_trainer
from tests.pair_shards import write_pairs
from tests.training_inputs import make_inputs
from tests.training_memory import Workplace

STEPS, COMPARED_STEP = 20, 4
# Of the change since the start. Adam makes a whole step of a rounding error in a gradient near 0.
TOLERANCES = {"fp32": 0.02, "bf16": 0.15}
PLAINEST = {"fp32": 0, "bf16": 1}  # the lowest ZeRO stage
WAYS = [
    {"zero_stage": 1},
    {"zero_stage": 2},
    {"zero_stage": 3},
    {"zero_stage": 1, "offload_optimizer": True},
    {"zero_stage": 2, "offload_optimizer": True},
    {"zero_stage": 3, "offload_optimizer": True},
]


@dataclass(frozen=True)
class Learnt:
    """Losses of all steps; the weights before the first, after some and after all, as one row."""

    losses: list[float]
    start: torch.Tensor
    early: torch.Tensor
    end: torch.Tensor


class World:
    """A tiny backbone and pairs to train on."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        build_tiny_zimage(0, folder / "backbone")
        pairs = write_pairs(folder / "pairs", train_styles=6, val_styles=3)
        self.inputs: TrainingInputs = make_inputs(pairs, folder)
        self.learnt: dict[str, Learnt] = {}

    def build(self, **changes: Any) -> Trainer:
        job = TrainingJob(
            config=self._config(changes),
            inputs=self.inputs,
            output_uri=str(self.folder / "output"),
            tracking=TrackingConfig(),
            device="cuda",
            init_uri=None,
            attempt_uri=str(self.folder),
            origin={"key": "k", "run_id": "r"},
        )
        return build_trainer(job, Recorder(job, rank=1))

    def _config(self, changes: dict[str, Any]) -> TrainingConfig:
        sizes = {"image_size": 32, "patch_size": 8, "hidden_size": 16, "num_layers": 1}
        predictor = {"rank": 2, "dim": 16, "depth": 1, "num_heads": 2, "compress_dim": 4}
        settings = {
            "backbone": str(self.folder / "backbone"),
            "steps": STEPS,
            "styles_per_step": 4,
            "targets_per_style": 3,
            "max_refs": 3,
            "num_workers": 1,
            "validation_targets": 2,
            "grid_styles": 0,
            "learning_rate": 1e-2,
            "log_every": 1,
            "predictor": {**predictor, "encoder": {**sizes, "num_heads": 2}},
        }
        return TrainingConfig.model_validate({**settings, **changes})

    def plainest(self, precision: str) -> Learnt:
        if precision not in self.learnt:
            stage = PLAINEST[precision]
            self.learnt[precision] = learn(self.build(precision=precision, zero_stage=stage))
        return self.learnt[precision]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, process_group: None) -> Iterator[World]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOCAL_RANK", "0")
        yield World(tmp_path_factory.mktemp("world"))


def learn(trainer: Trainer) -> Learnt:
    start = torch.cat([value.flatten() for value in trainer.average.whole_state().values()])
    states = []
    for step in range(STEPS):
        trainer.train_step(step)
        if step + 1 in (COMPARED_STEP, STEPS):
            state = gather_state(trainer.engine, trainer.average)
            weights = [value.flatten() for name, value in state.items() if name[:7] == "weight/"]
            states.append(torch.cat(weights))
    trainer.validate(STEPS)
    assert torch.isfinite(torch.tensor(trainer.state.best_metrics["val/loss_right"]))
    losses = [entry["train/loss"] for entry in trainer.state.history if "train/loss" in entry]
    return Learnt(losses, start, *states)


def assert_falls(losses: list[float]) -> None:
    assert len(losses) == STEPS
    assert torch.isfinite(torch.tensor(losses)).all(), losses
    assert sum(losses[-5:]) <= sum(losses[:5]), losses


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_loss_falls(world: World, precision: str) -> None:
    learnt = world.plainest(precision)
    print(f"\n{precision}: losses {learnt.losses}")
    assert_falls(learnt.losses)
    assert not torch.equal(learnt.start, learnt.early)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("way", WAYS, ids=lambda way: "-".join(map(str, way.values())))
def test_sharding_and_offloading_learn_the_same(
    world: World, precision: str, way: dict[str, Any]
) -> None:
    wanted = world.plainest(precision)
    found = learn(world.build(precision=precision, **way))
    changes = [
        float((own - other).norm() / (other - wanted.start).norm())
        for own, other in ((found.early, wanted.early), (found.end, wanted.end))
    ]
    most = float((found.early - wanted.early).abs().max())
    print(
        f"\n{precision} {way}: differs by {changes[0]:.2e} of the change after {COMPARED_STEP}"
        f" steps (at most {most:.2e}), {changes[1]:.2e} after {STEPS};"
        f" losses {found.losses[0]:.5f} -> {found.losses[-1]:.5f},"
        f" plainest {wanted.losses[0]:.5f} -> {wanted.losses[-1]:.5f}"
    )
    assert_falls(found.losses)
    assert found.losses[0] == pytest.approx(wanted.losses[0], rel=1e-2)
    assert changes[0] <= TOLERANCES[precision]


@pytest.mark.parametrize("case", ["middle", "large"])
def test_the_estimate_of_the_memory_is_within_15_percent(workplace: Workplace, case: str) -> None:
    found = workplace.compare(case)
    print(f"\n{case}: {found}")
    assert found.increase_ratio == pytest.approx(1, abs=0.15), found


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    return Workplace.build(tmp_path_factory.mktemp("memory"), device="cuda")
