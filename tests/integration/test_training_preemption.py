"""Machines that are taken away with notice: a checkpoint is taken at once and gone on from."""

import threading
import time
from pathlib import Path

import pytest

from tests.integration.training_process import (
    assert_same_predictor,
    checkpointed_steps,
    last_step,
    messages,
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
