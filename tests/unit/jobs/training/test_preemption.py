import os
import signal
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from jobs.training import preemption
from jobs.training.preemption import PreemptionWatch, take_sigterm_as_notice
from jobs.training.worker_processes import interface_of


@pytest.fixture
def watch(process_group: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[PreemptionWatch]:
    """That of a single rank, with Ray silent."""
    monkeypatch.setattr(preemption.ray.train, "get_preemption_info", lambda: None)
    before = signal.getsignal(signal.SIGTERM)
    yield PreemptionWatch()
    signal.signal(signal.SIGTERM, before)


def test_a_sigterm_is_told_once(watch: PreemptionWatch) -> None:
    take_sigterm_as_notice()
    assert watch.notice() is None
    os.kill(os.getpid(), signal.SIGTERM)
    assert watch.notice() == "a worker was asked to end"
    assert watch.notice() is None


def test_every_node_that_ray_drains_is_told_once(
    watch: PreemptionWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    draining: list[str] = []

    def info() -> SimpleNamespace | None:
        return SimpleNamespace(preempted_node_ids=list(draining)) if draining else None

    monkeypatch.setattr(preemption, "_RAY_INTERVAL_S", 0.0)
    monkeypatch.setattr(preemption.ray.train, "get_preemption_info", info)
    told = []
    for node in (None, "a", None, "b", None):
        draining += [node] if node else []
        told.append(watch.notice())
    assert told == [None, "a node will be taken away", None, "a node will be taken away", None]


def test_ray_is_not_asked_at_every_step(
    watch: PreemptionWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[None] = []
    monkeypatch.setattr(preemption.ray.train, "get_preemption_info", lambda: asked.append(None))
    for _ in range(20):
        watch.notice()
    assert asked == []


def test_the_interface_of_an_address() -> None:
    assert interface_of("127.0.0.1") == "lo"
    assert interface_of("192.0.2.1") is None  # reserved for documentation
