"""Machines that are taken away with notice: a checkpoint is taken at once and gone on from."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from jobs.training.attempts import list_checkpoints
from jobs.training.checkpoints import whole_files
from tests.integration.test_training_nodes import cluster_of
from tests.integration.training_process import (
    assert_same_predictor,
    checkpointed_steps,
    last_step,
    messages,
    training_process,
    workers,
)
from tests.integration.training_world import STEPS, World, history

pytestmark = pytest.mark.slow

NEVER = 10_000
WAIT_S = 240


def newest_checkpoint(output: Path) -> int:
    return max(checkpointed_steps(output), default=0)


def test_a_worker_that_gets_sigterm_leaves_a_checkpoint(
    world: World, trained: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.1")
    output = world.folder / "terminated"
    steps: list[int] = []

    def take_away() -> None:
        deadline = time.monotonic() + WAIT_S
        while last_step(output) == 0 and time.monotonic() < deadline:
            time.sleep(0.02)
        one, *_ = found = workers()
        one.terminate()
        while newest_checkpoint(output) == 0 and time.monotonic() < deadline:
            time.sleep(0.02)
        steps.append(newest_checkpoint(output))
        for process in found:
            process.kill()

    thread = threading.Thread(target=take_away)
    thread.start()
    world.train(output.name, max_failures=1, checkpoint_every=NEVER)
    thread.join()
    assert 0 < steps[0] < STEPS
    assert f"a worker was asked to end: checkpoint at step {steps[0]}" in messages(output)
    assert history(output)["resumed_at"] == steps
    assert_same_predictor(output, world.folder / "whole", atol=1e-6)


def drain(node_id: str, address: str, deadline_s: int) -> None:
    """What a spot instance's agent does when it hears that its machine will be taken away."""
    ray = Path(sys.executable).with_name("ray")
    reason = ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot"]
    options = ["--address", address, "--node-id", node_id, "--deadline-remaining-seconds"]
    subprocess.run([str(ray), "drain-node", *options, str(deadline_s), *reason], check=True)


def test_a_node_that_ray_drains_leaves_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path)
    output = tmp_path / "output"
    changes = {"steps": 200, "min_workers": 1, "checkpoint_every": NEVER, "validate_every": NEVER}
    config = world.config.model_copy(update=changes)
    with cluster_of(num_nodes=2) as cluster:
        environment = {
            "RAY_ADDRESS": cluster.address,
            "RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S": "0.5",
        }
        run = (world, config, str(output), tmp_path / "driver.log", world.database, environment)
        with training_process(*run) as driver:
            driver.wait_until(lambda: last_step(output) > 0)
            (*_, last) = cluster.worker_nodes
            drain(last.node_id, cluster.address, deadline_s=WAIT_S)
            driver.wait_until(lambda: newest_checkpoint(output) > 0)
            step = newest_checkpoint(output)
            assert whole_files(list_checkpoints(str(output / "checkpoints"))[0]) is not None
            cluster.remove_node(last, allow_graceful=False)
            driver.wait()
    said = messages(output)
    assert f"a node will be taken away: checkpoint at step {step}" in said
    assert f"resumed at step {step} with 1 workers" in said
    record = history(output)
    assert record["steps"] == config.steps
    assert record["resumed_at"] == [step]
