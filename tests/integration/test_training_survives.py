"""Workers that are killed: what comes back equals the uninterrupted run, on any number of them."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.integration.training_world import STEPS, World, assert_same_predictor, history, losses

pytestmark = pytest.mark.slow

ZERO_STAGES = [1, 3]  # 2 is that of test_training.py, where the driver is killed too


@pytest.fixture(scope="module")
def whole(world: World, trained: object) -> Path:
    return world.folder / "whole"


def workers() -> list[psutil.Process]:
    """Ray Train's workers of this process's Ray."""
    family = psutil.Process().children(recursive=True)
    return [p for p in family if "RayTrainWorker" in " ".join(p.cmdline())]


@contextmanager
def killed_after_checkpoint(output: Path, step: int, num_workers: int) -> Iterator[None]:
    """SIGKILL all workers as soon as the checkpoint of a step is written by all of them."""
    killed: list[int] = []

    def kill() -> None:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            manifests = output.glob(f"checkpoints/*/attempt-*/step-{step:08d}/manifest-*")
            if len(list(manifests)) == num_workers:
                for process in workers():
                    process.kill()
                    killed.append(process.pid)
                return
            time.sleep(0.02)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield
    finally:
        thread.join()
    assert len(killed) == num_workers


def assert_every_epoch_was_exact(world: World, output: Path) -> None:
    record = history(output)
    trained = STEPS * world.config.styles_per_step
    epochs, rest = divmod(trained, world.num_styles)
    assert record["complete_epochs"] == epochs
    assert len(record["epoch_styles"]) == len(set(record["epoch_styles"])) == rest


@pytest.mark.parametrize("zero_stage", ZERO_STAGES)
def test_killed_workers_go_on_as_if_nothing_had_happened(
    world: World, whole: Path, zero_stage: int
) -> None:
    output = world.folder / f"zero-{zero_stage}"
    with killed_after_checkpoint(output, 6, num_workers=2):
        world.train(output.name, zero_stage=zero_stage, max_failures=1)
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
            killed_after_checkpoint(output, step, num_workers=changes["num_workers"]),
            pytest.raises(Exception, match=r"(?i)worker"),
        ):
            world.train(output.name, **changes)
    world.train(output.name, num_workers=2, zero_stage=3)
    first, second = history(output)["resumed_at"]
    assert 6 <= first < 12 <= second
    assert losses(output) == pytest.approx(losses(whole), rel=1e-3)
    assert_same_predictor(output, whole, atol=1e-4)
    assert_every_epoch_was_exact(world, output)
