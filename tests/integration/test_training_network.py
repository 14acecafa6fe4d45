"""Nodes with networks of their own: one that is cut off leaves the training to the other."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.integration.training_process import (
    checkpointed_steps,
    messages,
    training_process,
)
from tests.integration.training_world import World, history
from tests.network_namespaces import Node, nodes, why_not

pytestmark = pytest.mark.slow

STEPS = 60
PORT = 6379
RAY_ENVIRONMENT = {
    "RAY_AUTH_MODE": "token",
    # Ray is to notice within seconds that a node does not answer.
    "RAY_health_check_initial_delay_ms": "3000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "5000",
    "RAY_health_check_failure_threshold": "3",
}


def start_ray(node: Node, *arguments: str) -> None:
    ray = str(Path(sys.executable).with_name("ray"))
    memory = ["--object-store-memory", str(200 * 1024**2)]
    common = ["start", "--node-ip-address", node.address, "--disable-usage-stats", *memory]
    started = subprocess.run(
        node.command(ray, *common, *arguments),
        env=os.environ | RAY_ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert started.returncode == 0, started.stdout + started.stderr


@contextmanager
def cluster() -> Iterator[tuple[Node, list[Node]]]:
    """A head without CPUs and two nodes of one CPU, each in a namespace."""
    with nodes(3) as (head, *others):
        address = f"{head.address}:{PORT}"
        start_ray(head, "--head", "--port", str(PORT), "--num-cpus", "0")
        for node in others:
            start_ray(node, "--address", address, "--num-cpus", "1")
        yield head, others


def test_a_node_that_is_cut_off_leaves_the_training_to_the_other(tmp_path: Path) -> None:
    if reason := why_not():
        pytest.skip(reason)
    world, output = World(tmp_path), tmp_path / "output"
    changes = {"steps": STEPS, "min_workers": 1, "max_failures": 3, "validate_every": STEPS}
    changes |= {"collective_timeout_s": 30, "storage_patience_s": 10}
    config = world.config.model_copy(update=changes)
    with cluster() as (head, others):
        run = (world, config, str(output), tmp_path / "driver.log", world.database)
        environment = RAY_ENVIRONMENT | {"RAY_ADDRESS": f"{head.address}:{PORT}"}
        with training_process(*run, environment, command=head.command) as driver:
            driver.wait_until(lambda: 6 in checkpointed_steps(output))
            others[-1].cut_off()
            driver.wait()
    record = history(output)
    assert record["steps"] == STEPS
    assert record["resumed_at"]
    assert record["complete_epochs"] == STEPS * config.styles_per_step // world.num_styles
    assert any("with 1 workers" in message for message in messages(output))
