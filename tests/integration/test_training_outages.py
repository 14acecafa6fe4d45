"""Storage and MLflow are away for a minute in the middle of a training."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from jobs.training.attempts import list_checkpoints
from jobs.training.checkpoints import whole_files
from tests.integration.training_process import (
    assert_same_predictor,
    checkpointed_steps,
    joining_ray,
    last_step,
    messages,
    training_process,
)
from tests.integration.training_world import STEPS, World, history
from tests.training_servers import mlflow_over, s3_environment, s3_over

pytestmark = pytest.mark.slow

OUTAGE_S = 60


@pytest.fixture(scope="module")
def outlived(
    world: World, trained: object, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Path, str]]:
    """The output of a training during which both servers were away, and MLflow's address."""
    folder = tmp_path_factory.mktemp("outage")
    output = folder / "s3" / "bucket" / "output"
    for path in (output.parent, folder / "mlflow"):
        path.mkdir(parents=True)
    with s3_over(folder / "s3") as store, mlflow_over(folder / "mlflow") as mlflow:
        environment = joining_ray(s3_environment(store.endpoint))
        with training_process(
            world,
            world.config,
            "s3://bucket/output",
            folder / "driver.log",
            mlflow.endpoint,
            environment,
        ) as driver:
            driver.wait_until(lambda: 6 in checkpointed_steps(output))
            store.kill()
            mlflow.kill()
            time.sleep(OUTAGE_S)
            assert driver.process.poll() is None, driver.log.read_text()
            assert last_step(output) < STEPS
            store.start()
            mlflow.start()
            driver.wait()
        yield output, mlflow.endpoint


def test_no_step_is_lost(world: World, outlived: tuple[Path, str]) -> None:
    output, _ = outlived
    assert_same_predictor(output, world.folder / "whole", atol=1e-6)
    assert history(output)["resumed_at"] == []


def test_what_could_not_be_written_is_there_afterwards(outlived: tuple[Path, str]) -> None:
    output, _ = outlived
    newest, *_ = list_checkpoints(str(output / "checkpoints"))
    assert newest.endswith(f"step-{STEPS:08d}")
    assert whole_files(newest) is not None
    assert last_step(output) == STEPS
    said = messages(output)
    assert any("trying again" in message for message in said)
    assert any("went through" in message for message in said)
    pictures = sorted(path.name for path in (output / "validation").iterdir())
    assert pictures == ["step-000012.png", "step-000024.png"]


def test_mlflow_has_every_metric_of_every_step(outlived: tuple[Path, str]) -> None:
    output, endpoint = outlived
    record = history(output)
    client = MlflowClient(tracking_uri=endpoint)
    assert client.get_run(record["run_id"]).info.status == "FINISHED"
    logged: dict[str, list[tuple[int, float]]] = {}
    for entry in record["history"]:
        for name, value in entry.items():
            if name != "step":
                logged.setdefault(name, []).append((entry["step"], value))
    assert len(logged["train/loss"]) == STEPS // 2
    for name, values in logged.items():
        found = client.get_metric_history(record["run_id"], name)
        assert [(metric.step, metric.value) for metric in found] == values, name
    names = {entry.path for entry in client.list_artifacts(record["run_id"])}
    assert {"predictor", "training.json", "images"} <= names
