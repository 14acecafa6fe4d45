"""Storage and MLflow are away for a minute in the middle of a training."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from mlflow.tracking import MlflowClient
from safetensors.torch import load_file

from jobs.training.checkpoints import list_checkpoints, whole_files
from tests.integration.training_world import DRIVER, STEPS, World, history
from tests.training_servers import Server, mlflow_over, s3_environment, s3_over

pytestmark = pytest.mark.slow

OUTAGE_S = 60
WAIT_S = 240


@contextmanager
def training(
    world: World, folder: Path, output: str, database: str, environment: dict[str, str]
) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """A training in processes of its own, which are killed at the end; with its log."""
    script, log = folder / "driver.py", folder / "driver.log"
    script.write_text(DRIVER)
    arguments = [world.config.model_dump_json(), str(world.pairs), output, database]
    own = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"} | environment
    own["PYTHONPATH"] = str(Path(__file__).resolve().parents[2])
    with log.open("a") as stream:
        driver = subprocess.Popen(
            [sys.executable, str(script), *arguments],
            env=own,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )
    try:
        yield driver, log
    finally:
        if driver.poll() is None:
            os.killpg(driver.pid, signal.SIGKILL)
        driver.wait()


def wait_until(reached: Callable[[], bool], driver: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + WAIT_S
    while not reached():
        assert driver.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)


def bucket_of(server: Server, folder: Path) -> tuple[str, Path]:
    """A new bucket, and the folder that the server keeps it in."""
    (folder / "training").mkdir()
    return "s3://training/output", folder / "training" / "output"


def is_checkpointed(output: Path, step: int) -> bool:
    manifests = output.glob(f"checkpoints/*/attempt-*/step-{step:08d}/manifest-*")
    return len(list(manifests)) == 2


def last_train_step(output: Path) -> int:
    lines = (output / "progress.jsonl").read_text().splitlines()
    return max(json.loads(line).get("done", 0) for line in lines if '"train"' in line)


@pytest.fixture(scope="module")
def outlived(
    world: World, trained: object, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Path, str]]:
    """The output of a training during which both servers were away, and MLflow's address."""
    folder = tmp_path_factory.mktemp("outage")
    (folder / "s3").mkdir()
    (folder / "mlflow").mkdir()
    with s3_over(folder / "s3") as store, mlflow_over(folder / "mlflow") as mlflow:
        uri, output = bucket_of(store, folder / "s3")
        with training(world, folder, uri, mlflow.endpoint, s3_environment(store)) as (driver, log):
            wait_until(lambda: is_checkpointed(output, 6), driver, log)
            store.kill()
            mlflow.kill()
            time.sleep(OUTAGE_S)
            assert driver.poll() is None, log.read_text()
            assert last_train_step(output) < STEPS
            store.start()
            mlflow.start()
            assert driver.wait(WAIT_S) == 0, log.read_text()
        yield output, mlflow.endpoint


def test_no_step_is_lost(world: World, outlived: tuple[Path, str]) -> None:
    output, _ = outlived
    expected = load_file(world.folder / "whole" / "predictor" / "model.safetensors")
    found = load_file(output / "predictor" / "model.safetensors")
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=1e-6, msg=name)
    assert history(output)["resumed_at"] == []


def test_what_could_not_be_written_is_there_afterwards(
    world: World, outlived: tuple[Path, str]
) -> None:
    output, _ = outlived
    newest, *_ = list_checkpoints(str(output / "checkpoints"))
    assert newest.endswith(f"step-{STEPS:08d}")
    assert whole_files(newest) is not None
    assert last_train_step(output) == STEPS
    assert "trying again" in (output / "progress.jsonl").read_text()
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
    for name, values in logged.items():
        found = client.get_metric_history(record["run_id"], name)
        assert [(m.step, m.value) for m in found] == values, name
    names = {entry.path for entry in client.list_artifacts(record["run_id"])}
    assert {"predictor", "training.json", "images"} <= names
