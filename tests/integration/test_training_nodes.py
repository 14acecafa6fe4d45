"""Several raylets: a node that is lost leaves the training to the others."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from ray.cluster_utils import Cluster

from tests.integration.training_world import DRIVER, World, history

pytestmark = pytest.mark.slow

STEPS = 60
WAIT_S = 300


@contextmanager
def cluster_of(num_nodes: int) -> Iterator[Cluster]:
    """A head without CPUs, and nodes of one CPU each."""
    memory = 200 * 1024**2
    head = {"num_cpus": 0, "object_store_memory": memory, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        for _ in range(num_nodes):
            cluster.add_node(num_cpus=1, object_store_memory=memory)
        cluster.wait_for_nodes()
        yield cluster
    finally:
        cluster.shutdown()


def wait_until_written(output: Path, step: int, driver: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + WAIT_S
    while len(list(output.glob(f"checkpoints/*/attempt-*/step-{step:08d}/manifest-*"))) < 2:
        assert driver.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)


def test_a_lost_node_leaves_the_training_to_the_others(tmp_path: Path) -> None:
    world = World(tmp_path)
    output, log = tmp_path / "output", tmp_path / "driver.log"
    changes = {"steps": STEPS, "min_workers": 1, "max_failures": 3, "validate_every": STEPS}
    script = tmp_path / "driver.py"
    script.write_text(DRIVER)
    config = world.config.model_copy(update=changes).model_dump_json()
    with cluster_of(num_nodes=2) as cluster, log.open("w") as stream:
        environment = {**os.environ, "RAY_ADDRESS": cluster.address}
        driver = subprocess.Popen(
            [sys.executable, script, config, world.pairs, output, world.database],
            env=environment,
            stdout=stream,
            stderr=stream,
        )
        try:
            wait_until_written(output, 6, driver, log)
            (*_, last) = cluster.worker_nodes
            cluster.remove_node(last, allow_graceful=False)
            assert driver.wait(WAIT_S) == 0, log.read_text()
        finally:
            for process in psutil.Process(driver.pid).children() if driver.poll() is None else ():
                process.kill()
            driver.kill()
            driver.wait()
    record = history(output)
    assert record["steps"] == STEPS
    assert record["resumed_at"]
    assert record["complete_epochs"] == STEPS * world.config.styles_per_step // world.num_styles
    assert "with 1 workers" in (output / "progress.jsonl").read_text()
