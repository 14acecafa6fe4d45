"""A training in processes of its own, which tests may kill, and what its output shows."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import ray
import torch
from safetensors.torch import load_file

from jobs.training.config import TrainingConfig
from tests.integration.training_world import DRIVER, World

WAIT_S = 540


@dataclass(frozen=True)
class Driver:
    """The driver's process and its log."""

    process: subprocess.Popen[bytes]
    log: Path

    def wait_until(self, reached: Callable[[], bool]) -> None:
        """Wait for something to happen while the training runs."""
        deadline = time.monotonic() + WAIT_S
        while not reached():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.05)

    def wait(self) -> None:
        """Wait for the good end of the training."""
        assert self.process.wait(WAIT_S) == 0, self.log.read_text()

    def kill(self) -> None:
        """SIGKILL the driver and all it has started, its Ray too."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@contextmanager
def training_process(
    world: World,
    config: TrainingConfig,
    output: str,
    log: Path,
    database: str,
    environment: Mapping[str, str],
    command: Callable[..., list[str]] = lambda *arguments: list(arguments),
) -> Iterator[Driver]:
    """Train; what is left of it at the end is killed.

    Without RAY_ADDRESS in ``environment`` it starts a Ray of its own. ``command`` gives the command
    line that runs a program where the driver is to run.
    """
    script = log.with_suffix(".py")
    script.write_text(DRIVER)
    arguments = [config.model_dump_json(), str(world.pairs), output, database]
    own = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"} | dict(environment)
    with log.open("a") as stream:
        process = subprocess.Popen(
            command(sys.executable, str(script), *arguments),
            env=own,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )
    driver = Driver(process, log)
    try:
        yield driver
    finally:
        driver.kill()


def joining_ray(variables: Mapping[str, str]) -> dict[str, str]:
    """The environment of a driver on this process's Ray that gives its workers some variables."""
    job = {"runtime_env": {"env_vars": dict(variables)}}
    address = ray.get_runtime_context().gcs_address
    return {**variables, "RAY_ADDRESS": address, "RAY_JOB_CONFIG_JSON_ENV_VAR": json.dumps(job)}


def workers() -> list[psutil.Process]:
    """Ray Train's workers of this process's Ray."""
    family = psutil.Process().children(recursive=True)
    return [p for p in family if "RayTrainWorker" in " ".join(p.cmdline())]


def checkpointed_steps(output: Path, num_workers: int = 2) -> set[int]:
    """Steps of the checkpoints below a local output that all workers have written."""
    found: dict[Path, int] = {}
    for manifest in output.glob("checkpoints/*/attempt-*/step-*/manifest-*.json"):
        found[manifest.parent] = found.get(manifest.parent, 0) + 1
    return {int(f.name.removeprefix("step-")) for f, num in found.items() if num >= num_workers}


def messages(output: Path) -> list[str]:
    """What the training has said."""
    path = output / "progress.jsonl"
    events = map(json.loads, path.read_text().splitlines()) if path.exists() else ()
    return [event["message"] for event in events if "message" in event]


def last_step(output: Path) -> int:
    """The last step that the progress shows, 0 before the first."""
    path = output / "progress.jsonl"
    events = map(json.loads, path.read_text().splitlines()) if path.exists() else ()
    return max((event["done"] for event in events if event.get("stage") == "train"), default=0)


def assert_same_predictor(output: Path, whole: Path, atol: float) -> None:
    """Compare the predictors of two outputs."""
    expected = load_file(whole / "predictor" / "model.safetensors")
    found = load_file(output / "predictor" / "model.safetensors")
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=atol, msg=name)
