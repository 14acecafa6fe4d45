"""Workers that are killed or hang: what comes back equals the uninterrupted run."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.integration.training_process import (
    WAIT_S,
    assert_same_predictor,
    checkpointed_steps,
    workers,
)
from tests.integration.training_world import STEPS, World, history, losses

pytestmark = pytest.mark.slow

# Stage 2 is that of test_training_torn.py, where the driver is killed too.
LAYOUTS = [{"zero_stage": 1}, {"zero_stage": 3, "backbone_shards": 2}]


@pytest.fixture(scope="module")
def whole(world: World, trained: object) -> Path:
    return world.folder / "whole"


@contextmanager
def after_checkpoint(
    output: Path, step: int, num_workers: int, act: Callable[[list[psutil.Process]], None]
) -> Iterator[None]:
    """Do something to the workers as soon as all have written the checkpoint of a step."""
    found: list[psutil.Process] = []

    def watch() -> None:
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline:
            if step in checkpointed_steps(output, num_workers):
                found.extend(workers())
                act(found)
                return
            time.sleep(0.02)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        thread.join()
    assert len(found) == num_workers


def kill_all(processes: list[psutil.Process]) -> None:
    for process in processes:
        process.kill()


def assert_every_epoch_was_exact(world: World, output: Path) -> None:
    record = history(output)
    trained = STEPS * world.config.styles_per_step
    epochs, rest = divmod(trained, world.num_styles)
    assert record["complete_epochs"] == epochs
    assert len(record["epoch_styles"]) == len(set(record["epoch_styles"])) == rest


@pytest.mark.parametrize("layout", LAYOUTS)
def test_killed_workers_go_on_as_if_nothing_had_happened(
    world: World, whole: Path, layout: dict[str, int]
) -> None:
    output = world.folder / f"zero-{layout['zero_stage']}"
    with after_checkpoint(output, 6, num_workers=2, act=kill_all):
        world.train(output.name, max_failures=1, **layout)
    assert history(output)["resumed_at"][0] >= 6
    assert_same_predictor(output, whole, atol=1e-6)
    assert_every_epoch_was_exact(world, output)


def test_any_number_of_workers_and_zero_stage_goes_on(world: World, whole: Path) -> None:
    output = world.folder / "changing"
    for step, changes in (
        (6, {"num_workers": 2, "zero_stage": 1}),
        (12, {"num_workers": 1, "zero_stage": 2}),
    ):
        with (
            after_checkpoint(output, step, changes["num_workers"], kill_all),
            pytest.raises(Exception, match=r"(?i)worker"),
        ):
            world.train(output.name, **changes)
    world.train(output.name, num_workers=2, zero_stage=3)
    first, second = history(output)["resumed_at"]
    assert 6 <= first < 12 <= second
    assert losses(output) == pytest.approx(losses(whole), rel=1e-3)
    assert_same_predictor(output, whole, atol=1e-4)
    assert_every_epoch_was_exact(world, output)


def test_a_worker_that_hangs_is_replaced(world: World, whole: Path) -> None:
    output = world.folder / "hung"
    stopped: list[psutil.Process] = []

    def stop_one(processes: list[psutil.Process]) -> None:
        stopped.append(processes[0])
        processes[0].suspend()

    with after_checkpoint(output, 6, num_workers=2, act=stop_one):
        world.train(output.name, max_failures=1, collective_timeout_s=40, storage_patience_s=20)
    (hung,) = stopped
    assert not hung.is_running() or hung.status() == psutil.STATUS_ZOMBIE
    assert history(output)["resumed_at"][0] >= 6
    assert_same_predictor(output, whole, atol=1e-6)
