import contextlib
import signal
import threading
from collections.abc import Callable

import pytest

from jobs.progress import NullProgress
from pipelines.interrupts import CheckedProgress, Interrupts

SIGNALS = [signal.SIGINT, signal.SIGTERM]


class Recorder(NullProgress):
    def __init__(self) -> None:
        self.reports: list[tuple[str, int, int | None, str]] = []

    def update(self, stage: str, done: int, total: int | None = None, note: str = "") -> None:
        self.reports.append((stage, done, total, note))


def in_thread(work: Callable[[], None]) -> BaseException | None:
    """What ``work`` raised in a thread of its own."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return raised[0] if raised else None


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_in_the_block_is_an_interrupt_and_the_handler_comes_back(
    number: signal.Signals,
) -> None:
    before = signal.getsignal(number)
    interrupts = Interrupts()
    with pytest.raises(KeyboardInterrupt), interrupts.raised():
        signal.raise_signal(number)
    assert interrupts.received
    assert signal.getsignal(number) == before


def test_the_handler_comes_back_after_an_error_too() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(OSError, match="disk full"), Interrupts().raised():
        raise OSError("disk full")
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_swallowed_interrupt_comes_again_with_the_next_check() -> None:
    interrupts = Interrupts()
    with interrupts.raised():
        interrupts.check()
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            interrupts.check()


def test_a_check_takes_back_a_handler_that_a_library_replaced() -> None:
    interrupts = Interrupts()
    with interrupts.raised():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        interrupts.check()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)


def test_other_threads_leave_the_handlers_alone() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    interrupts = Interrupts()

    def work() -> None:
        with interrupts.raised():
            interrupts.check()

    assert in_thread(work) is None
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_progress_is_passed_on_until_a_signal_came() -> None:
    interrupts, recorder = Interrupts(), Recorder()
    progress = CheckedProgress(recorder, interrupts)
    with interrupts.raised():
        progress.update("train", 1, 9, "loss 0.5")
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            progress.update("train", 2, 9)
    assert recorder.reports == [("train", 1, 9, "loss 0.5")]
