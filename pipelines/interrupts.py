"""Stopping a step by SIGINT or SIGTERM, whatever the libraries in it do with signals."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from jobs.progress import Progress

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """Turns SIGINT and SIGTERM into KeyboardInterrupt while a step runs.

    Dagster holds signals back and Ray replaces the handler of SIGTERM when it starts. An exception
    that a handler raises can also get lost in a callback. So the signal is remembered, and the
    step's own reports of progress look at it too.

    Attributes:
        received: Whether a signal came.
    """

    def __init__(self) -> None:
        self.received = False

    @contextmanager
    def raised(self) -> Iterator[None]:
        """Raise KeyboardInterrupt in the block when a signal comes; only in the main thread."""
        if not _in_main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in _SIGNALS}
        self._install()
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler or signal.SIG_DFL)

    def check(self) -> None:
        """Raise KeyboardInterrupt if a signal came, and take the handlers back."""
        if not _in_main_thread():
            return
        if self.received:
            raise KeyboardInterrupt
        self._install()

    def _install(self) -> None:
        for number in _SIGNALS:
            signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.received = True
        raise KeyboardInterrupt


class CheckedProgress:
    """Progress that stops the job when a signal came.

    Args:
        progress: What shows the reports.
        interrupts: Signals that came.
    """

    def __init__(self, progress: Progress, interrupts: Interrupts) -> None:
        self._progress = progress
        self._interrupts = interrupts

    def update(self, stage: str, done: int, total: int | None = None, note: str = "") -> None:
        """Pass the report on, unless the job has to stop."""
        self._interrupts.check()
        self._progress.update(stage, done, total, note)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
