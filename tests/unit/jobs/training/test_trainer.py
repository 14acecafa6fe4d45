"""The training loop in one process: DeepSpeed over a process group of one."""

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from i2l_model.backbones import Backbone, load_backbone
from i2l_model.backbones.tiny import build_tiny_zimage
from jobs.registry.tracking import TrackingConfig
from jobs.training import checkpointing, worker
from jobs.training.checkpoints import checkpoint_name, share_name
from jobs.training.config import TrainingConfig
from jobs.training.entry import TrainingDiverged
from jobs.training.inputs import TrainingInputs
from jobs.training.job import TrainingJob
from jobs.training.recorder import Recorder
from jobs.training.trainer import Trainer

pytestmark = pytest.mark.usefixtures("process_group")

in_all_precisions = pytest.mark.parametrize(
    ("precision", "zero_stage"),
    [("fp32", 0), *itertools.product(("fp32", "bf16"), (1, 2, 3))],
)


class Workshop:
    """Builds trainers that write below one folder."""

    def __init__(self, folder: Path, config: TrainingConfig, inputs: TrainingInputs) -> None:
        self.folder = folder
        self.config = config
        self.inputs = inputs

    def build(self, **changes: Any) -> Trainer:
        job = TrainingJob(
            config=self.config.model_copy(update=changes),
            inputs=self.inputs,
            output_uri=str(self.folder / "output"),
            tracking=TrackingConfig(),
            device="cpu",
            init_uri=None,
            attempt_uri=str(self.folder),
            origin={"key": "k", "run_id": "r"},
        )
        return worker.build_trainer(job, Recorder(job, rank=1))


@pytest.fixture(scope="module")
def backbones(backbone: Backbone, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Backbone]:
    """The backbone by precision."""
    folder = tmp_path_factory.mktemp("backbone") / backbone.name
    build_tiny_zimage(0, folder)
    half = load_backbone(folder, dtype=torch.bfloat16)
    return {"fp32": backbone, "bf16": half}


@pytest.fixture
def workshop(
    tmp_path: Path,
    config: TrainingConfig,
    inputs: TrainingInputs,
    backbones: dict[str, Backbone],
    monkeypatch: pytest.MonkeyPatch,
) -> Workshop:
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setattr(worker, "load_frozen_backbone", lambda of, _: backbones[of.precision])

    def report(metrics: dict, *, checkpoint: str, checkpoint_upload_fn: Any, **_: Any) -> None:
        checkpoint_upload_fn(checkpoint, "")

    monkeypatch.setattr(checkpointing.ray.train, "report", report)
    monkeypatch.setattr(checkpointing, "ray_checkpoint", str)
    changes = {"learning_rate": 1e-2, "log_every": 1, "grid_styles": 0}
    return Workshop(tmp_path, config.model_copy(update=changes), inputs)


def weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in trainer.objective.state_dict().items()}


def run(trainer: Trainer, first: int, last: int) -> None:
    for step in range(first, last):
        trainer.train_step(step)


def assert_equal(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> None:
    assert left.keys() == right.keys()
    for name, value in left.items():
        torch.testing.assert_close(right[name], value, rtol=0, atol=1e-6, msg=name)


def test_the_loss_falls(workshop: Workshop) -> None:
    trainer = workshop.build()
    run(trainer, 0, 20)
    losses = [entry["train/loss"] for entry in trainer.state.history]
    assert sum(losses[-3:]) < 0.97 * sum(losses[:3])
    assert trainer.state.history[0]["optim/grad_norm"] > 0


@in_all_precisions
def test_restored_equals_uninterrupted(workshop: Workshop, precision: str, zero_stage: int) -> None:
    whole = workshop.build(precision=precision, zero_stage=zero_stage)
    run(whole, 0, 3)
    whole.validate(3)
    whole.checkpoint(3)
    run(whole, 3, 6)

    resumed = workshop.build(precision=precision, zero_stage=zero_stage)
    resumed.restore()
    assert resumed.state.step == 3
    assert resumed.state.resumed_at == [3]
    assert resumed.state.best_metrics == whole.state.best_metrics
    run(resumed, 3, 6)
    assert_equal(weights(whole), weights(resumed))
    assert_equal(whole.average.whole_state(), resumed.average.whole_state())
    assert_equal(whole.best, resumed.best)


def test_accumulated_gradients_equal_those_of_the_whole_batch(workshop: Workshop) -> None:
    whole = workshop.build()
    parts = workshop.build(gradient_accumulation_steps=2)
    for trainer in (whole, parts):
        run(trainer, 0, 1)
    first, second = (trainer.state.history[0] for trainer in (whole, parts))
    assert second["train/loss"] == pytest.approx(first["train/loss"], rel=1e-5)
    assert second["optim/grad_norm"] == pytest.approx(first["optim/grad_norm"], rel=1e-3)


@pytest.mark.parametrize(("before", "after"), [(0, 1), (1, 2), (2, 3), (3, 0)])
def test_a_checkpoint_of_another_zero_stage_is_gone_on_from(
    workshop: Workshop, before: int, after: int
) -> None:
    first = workshop.build(zero_stage=before)
    run(first, 0, 3)
    first.checkpoint(3)
    run(first, 3, 6)
    second = workshop.build(zero_stage=after)
    second.restore()
    run(second, 3, 6)
    assert_equal(first.average.whole_state(), second.average.whole_state())


def test_a_damaged_checkpoint_gives_way_to_the_one_before(workshop: Workshop) -> None:
    trainer = workshop.build()
    for step in range(2):
        trainer.train_step(step)
        trainer.checkpoint(step + 1)
    share = workshop.folder / checkpoint_name(2) / share_name(0, 1)
    data = bytearray(share.read_bytes())
    data[-1] ^= 1
    share.write_bytes(data)
    resumed = workshop.build()
    resumed.restore()
    assert resumed.state.step == 1


def test_a_checkpoint_that_ray_skips_is_not_waited_for(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    patience_s = 20.0
    monkeypatch.setattr(checkpointing.ray.train, "report", lambda *_, **__: None)
    trainer = workshop.build(storage_patience_s=patience_s)
    for step in range(2):
        trainer.train_step(step)
        trainer.checkpoint(step + 1)
    assert trainer.state.history[-1]["time/checkpoint_s"] < patience_s


def test_a_checkpoint_waits_for_the_upload_of_the_one_before(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    submitted: list[Any] = []

    def report(*_: Any, checkpoint_upload_fn: Any, **__: Any) -> None:
        submitted.append(checkpoint_upload_fn)

    monkeypatch.setattr(checkpointing.ray.train, "report", report)
    trainer = workshop.build(storage_patience_s=1.0)
    for step in range(2):
        trainer.train_step(step)
        trainer.checkpoint(step + 1)
    assert len(submitted) == 2
    assert trainer.state.history[-1]["time/checkpoint_s"] >= 1.0


def test_the_best_weights_are_kept_when_later_ones_are_worse(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = workshop.build()
    losses = iter([0.9, 0.5, 0.7])
    assert trainer.validator is not None
    monkeypatch.setattr(
        trainer.validator, "losses", lambda _: {"val/loss_right": next(losses)}, raising=True
    )
    for step in range(3):
        trainer.train_step(step)
        trainer.validate(step + 1)
        if step == 1:
            expected = {
                name: value.clone() for name, value in trainer.average.whole_state().items()
            }
    assert trainer.state.best_step == 2
    assert_equal(expected, trainer.best)


@in_all_precisions
def test_a_step_without_a_finite_gradient_is_left_out_and_its_batch_kept(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch, precision: str, zero_stage: int
) -> None:
    trainer = workshop.build(precision=precision, zero_stage=zero_stage)
    run(trainer, 0, 1)
    before = trainer.average.whole_state()
    forward = type(trainer.objective).forward
    monkeypatch.setattr(
        type(trainer.objective), "forward", lambda *args: forward(*args) * float("nan")
    )
    run(trainer, 1, 2)
    monkeypatch.undo()
    assert_equal(trainer.average.whole_state(), before)
    assert trainer.average.num_updates == 1
    (file,) = (workshop.folder / "output" / "skipped").iterdir()
    assert file.name == "step-00000002-rank-00000.json"
    (groups,) = json.loads(file.read_text())
    assert [len(group["losses"]) for group in groups] == [3, 3, 3, 3]
    assert {loss for group in groups for loss in group["losses"]} == {"nan"}
    assert "train/loss" not in trainer.state.history[1]
    run(trainer, 2, 3)
    assert trainer.state.num_skipped == 0
    assert trainer.average.num_updates == 2
    assert all(bool(value.isfinite().all()) for value in weights(trainer).values())


def test_a_loss_far_above_those_before_leaves_its_step_out(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = workshop.build(max_loss_ratio=3.0)
    run(trainer, 0, 2)
    before, mean = trainer.average.whole_state(), trainer.state.mean_loss
    forward = type(trainer.objective).forward
    with monkeypatch.context() as patch:
        patch.setattr(type(trainer.objective), "forward", lambda *args: forward(*args) * 10)
        run(trainer, 2, 3)
    assert_equal(trainer.average.whole_state(), before)
    assert trainer.state.mean_loss == mean
    assert trainer.state.num_skipped == 1
    (file,) = (workshop.folder / "output" / "skipped").iterdir()
    (groups,) = json.loads(file.read_text())
    assert all(loss > 0 for group in groups for loss in group["losses"])
    run(trainer, 3, 4)
    assert trainer.state.num_skipped == 0
    assert trainer.average.num_updates == 3


def test_the_gradient_that_is_shown_is_of_the_steps_that_were_made(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = workshop.build()
    run(expected, 0, 1)
    trainer = workshop.build(log_every=2)
    run(trainer, 0, 1)
    forward = type(trainer.objective).forward
    monkeypatch.setattr(
        type(trainer.objective), "forward", lambda *args: forward(*args) * float("nan")
    )
    run(trainer, 1, 4)
    norms = [entry.get("optim/grad_norm") for entry in trainer.state.history]
    assert norms == [pytest.approx(expected.state.history[0]["optim/grad_norm"]), None]


def test_the_time_of_a_step_is_without_the_reading_of_the_checkpoint(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = workshop.build()
    # As if it took 1000 seconds.
    monkeypatch.setattr(trainer.checkpointer, "restore", lambda: trainer.metrics.pause(-1000))
    trainer.restore()
    run(trainer, 0, 1)
    assert trainer.state.history[0]["time/step_s"] < 500
    assert trainer.state.train_time_s < 500


def test_losses_by_noise_level_make_up_the_loss(workshop: Workshop) -> None:
    trainer = workshop.build(log_every=5)
    run(trainer, 0, 5)
    (entry,) = trainer.state.history
    bands = {name: loss for name, loss in entry.items() if name.startswith("train/loss_sigma_")}
    assert len(bands) > 2
    assert min(bands.values()) <= entry["train/loss"] <= max(bands.values())
    parts = ("data_wait", "encode", "forward", "backward", "optimizer")
    assert sum(entry[f"time/{part}_s"] for part in parts) <= entry["time/step_s"]
    assert entry["data/samples_per_s"] == pytest.approx(4 * 3 / entry["time/step_s"], rel=0.05)
    assert entry["memory/peak_gib"] > 0.1


def test_too_many_steps_without_a_finite_gradient_end_the_run(workshop: Workshop) -> None:
    trainer = workshop.build(learning_rate=1e30, warmup_fraction=0.0, max_skipped_steps=2)
    with pytest.raises(TrainingDiverged, match=r"at step [45]; .* 3 steps in a row: lower"):
        run(trainer, 0, 9)
    assert len(list((workshop.folder / "output" / "skipped").iterdir())) == 3


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("zero_stage", [1, 2, 3])
def test_an_offloaded_optimizer_trains_the_same_and_goes_on(
    workshop: Workshop, precision: str, zero_stage: int
) -> None:
    plain = workshop.build(precision=precision, zero_stage=zero_stage)
    run(plain, 0, 6)
    expected = plain.average.whole_state()
    settings = {"precision": precision, "zero_stage": zero_stage, "offload_optimizer": True}
    offloaded = workshop.build(**settings)
    run(offloaded, 0, 3)
    offloaded.checkpoint(3)
    resumed = workshop.build(**settings)
    resumed.restore()
    for trainer in (offloaded, resumed):
        run(trainer, 3, 6)
        assert_equal(trainer.average.whole_state(), expected)


@pytest.mark.parametrize("zero_stage", [1, 2, 3])
def test_averages_in_bfloat16_follow_steps_below_its_resolution(
    workshop: Workshop, zero_stage: int
) -> None:
    trainer = workshop.build(precision="bf16", zero_stage=zero_stage, learning_rate=1e-6)
    before = trainer.average.whole_state()
    run(trainer, 0, 3)
    after = trainer.average.whole_state()
    large = {name: value.abs() > 0.01 for name, value in before.items()}  # steps of 3e-5 or more
    moved = torch.cat([(after[name] - before[name]).abs()[large[name]] for name in before])
    assert float(((moved > 0) & (moved < 1e-5)).float().mean()) > 0.5
