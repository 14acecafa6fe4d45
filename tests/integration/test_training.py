"""Training end to end on a tiny random backbone: two DeepSpeed workers under a local Ray."""

import json
import time
from pathlib import Path

import pytest
import torch

from i2l_model.errors import InputError
from i2l_model.predictor import LoraPredictor
from jobs.registry.tracking import TrackingConfig
from jobs.training import run
from jobs.training.entry import TrainingDiverged
from jobs.training.run import TrainingResult, run_training
from tests.integration.training_world import STEPS, Recording, World, history

pytestmark = pytest.mark.slow


def test_the_loss_falls_and_the_predictor_beats_the_bare_backbone(
    world: World, trained: tuple[TrainingResult, Recording]
) -> None:
    result, _ = trained
    losses = [
        e["train/loss"] for e in history(world.folder / "whole")["history"] if "train/loss" in e
    ]
    assert losses[-1] < 0.97 * losses[0]
    assert result.metrics["val/loss_right"] < 0.97 * result.metrics["val/loss_null"]


def test_the_predictor_folder_is_complete_and_loads(
    trained: tuple[TrainingResult, Recording],
) -> None:
    result, _ = trained
    folder = Path(result.predictor_uri)
    predictor = LoraPredictor.from_pretrained(folder)
    factors = predictor(torch.zeros(1, 1, 3, 32, 32))
    assert factors.rank == 2
    assert all(bool(B.any()) for B in factors.lora_B.values())
    origin = json.loads((folder / "provenance.json").read_text())
    assert origin["run_id"] == result.run_id
    assert origin["training"]["learning_rate"] == 1e-2
    assert origin["step"] in (12, 24)


def test_progress_reaches_the_driver(trained: tuple[TrainingResult, Recording]) -> None:
    _, recording = trained
    stages = {stage for stage, *_ in recording.updates}
    assert {"read pairs", "index pairs", "encode latents", "encode tokens", "train"} <= stages
    train = [(done, total) for stage, done, total, _ in recording.updates if stage == "train"]
    assert train[-1] == (STEPS, STEPS)
    assert train == sorted(train)


def test_one_run_holds_metrics_images_and_the_predictor(
    world: World, trained: tuple[TrainingResult, Recording]
) -> None:
    from mlflow.tracking import MlflowClient

    result, _ = trained
    client = MlflowClient(tracking_uri=world.database)
    run = client.get_run(result.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["training.learning_rate"] == "0.01"
    expected = {"train/loss", "train/loss_high_sigma", "optim/lr", "optim/grad_norm", "time/step_s"}
    expected |= {"val/loss_right", "val/loss_wrong", "val/loss_null"}
    assert expected <= run.data.metrics.keys()
    steps = [m.step for m in client.get_metric_history(result.run_id, "train/loss")]
    assert steps == list(range(2, STEPS + 1, 2))
    names = {entry.path for entry in client.list_artifacts(result.run_id)}
    assert {"predictor", "training.json", "images"} <= names
    pictures = sorted(path.name for path in (world.folder / "whole" / "validation").iterdir())
    assert pictures == ["step-000012.png", "step-000024.png"]


def test_a_finished_training_returns_at_once(
    world: World, trained: tuple[TrainingResult, Recording]
) -> None:
    result, _ = trained
    started = time.monotonic()
    again = world.train("whole")
    assert again.reused
    assert (again.run_id, again.metrics) == (result.run_id, result.metrics)
    assert time.monotonic() - started < 5


def test_an_initial_predictor_of_other_size_is_refused_before_ray(
    world: World, trained: tuple[TrainingResult, Recording]
) -> None:
    result, _ = trained
    options = world.config.predictor.model_copy(update={"rank": 4})
    with pytest.raises(InputError, match="has rank 2, the training 4"):
        run_training(
            world.config.model_copy(update={"predictor": options}),
            str(world.pairs),
            str(world.folder / "warm"),
            tracking=TrackingConfig(uri=world.database),
            init_from=result.predictor_uri,
        )


def times_started(output: Path) -> int:
    """How often workers have begun to set up a training."""
    lines = (output / "progress.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in lines]
    return sum(event.get("stage") == "read pairs" and event["done"] == 0 for event in events)


def test_a_training_that_diverges_ends_at_once(world: World, ray_cluster: None) -> None:
    changes = {"learning_rate": 1e30, "warmup_fraction": 0.0, "max_skipped_steps": 1}
    with pytest.raises(TrainingDiverged, match=r"at step \d+; .* 2 steps in a row: lower"):
        world.train("diverged", max_failures=3, **changes)
    assert times_started(world.folder / "diverged") == 1


def test_input_that_the_workers_refuse_is_not_tried_again(
    world: World, ray_cluster: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "check_memory", lambda *_: None)  # it refuses the size before
    changes = {"aspect_buckets": ((72, 60),), "cache": False}
    with pytest.raises(InputError, match=r"60"):
        world.train("refused", max_failures=3, **changes)
    assert times_started(world.folder / "refused") == 1
