"""Waiting for servers that are away: storage and MLflow may stop answering for a while."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from jobs.away import ServerAway

logger = logging.getLogger(__name__)

_FIRST_WAIT_S, _LONGEST_WAIT_S = 1.0, 30.0
_MOST_TRIES = 3  # of a write that a server refuses
_SMALL_BYTES = 4096  # of a line, or of the metrics of a step, as Python keeps them

_Result = TypeVar("_Result")
Report = Callable[[str], None]


def patiently(
    action: Callable[[], _Result], what: str, patience_s: float, report: Report
) -> _Result:
    """Do something again and again until the server answers, and return its result.

    Args:
        action: Raises ServerAway, or OSError, which a StorageError is, while the server is away.
        what: The action, for the message.
        patience_s: How long to try again, in seconds.
        report: Told once if the server does not answer, and once it does again.
    """
    deadline, wait_s = time.monotonic() + patience_s, _FIRST_WAIT_S
    while True:
        try:
            result = action()
        except (ServerAway, OSError) as error:
            if time.monotonic() + wait_s > deadline:
                raise
            if wait_s == _FIRST_WAIT_S:
                report(f"{what} fails ({error}); trying again")
            time.sleep(wait_s)
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
            continue
        if wait_s > _FIRST_WAIT_S:
            report(f"{what} went through")
        return result


@dataclass(frozen=True)
class Patience:
    """Does things `patiently`, for somebody who waits as long for all of them.

    Attributes:
        patience_s: How long to try again, in seconds.
        report: Told once if the server does not answer, and once it does again.
    """

    patience_s: float
    report: Report

    def __call__(self, action: Callable[[], _Result], what: str) -> _Result:
        """Do ``action``, which messages call ``what``, and return its result."""
        return patiently(action, what, self.patience_s, self.report)


class BackgroundWriter:
    """Does writes in order on a thread of its own; nothing waits for it.

    A write is tried until the server answers. One that is refused, which waiting does not change,
    is left out after a few tries; until the server takes one again, one try each is made.

    Args:
        what: The server, for messages.
        retry_s: Pause after a failure, in seconds.
        max_bytes: What is kept for a server that is away. What comes when so much waits is lost.
    """

    def __init__(self, what: str, retry_s: float = 5.0, max_bytes: int = 1 << 28) -> None:
        self._what = what
        self._retry_s = retry_s
        self._max_bytes = max_bytes
        self._writes: deque[tuple[Callable[[], None], int]] = deque()
        self._num_bytes = 0
        self._num_lost = 0
        self._num_refused = 0  # in a row
        self._is_away = False
        self._changed = threading.Condition()
        self._closing_until: float | None = None
        self._thread = threading.Thread(target=self._run, name=f"write to {what}", daemon=True)
        self._thread.start()

    def add(self, write: Callable[[], None], num_bytes: int = _SMALL_BYTES) -> None:
        """Put a write at the end of the queue.

        Args:
            write: Does it; what it raises is handled here.
            num_bytes: Memory that it takes while it waits, at least.
        """
        with self._changed:
            if self._writes and self._num_bytes + num_bytes > self._max_bytes:
                if not self._num_lost:
                    text = "%s is behind by %d writes; no more are kept until it takes some"
                    logger.warning(text, self._what, len(self._writes))
                self._num_lost += 1
                return
            self._writes.append((write, num_bytes))
            self._num_bytes += num_bytes
            self._changed.notify()

    def close(self, patience_s: float) -> None:
        """Wait for what is queued, for at most ``patience_s``; say how much is lost."""
        with self._changed:
            self._closing_until = time.monotonic() + patience_s
            self._changed.notify()
        self._thread.join()
        num_lost = self._num_lost + len(self._writes)
        if num_lost:
            logger.warning("%d writes to %s are lost", num_lost, self._what)

    def _run(self) -> None:
        while self._wait_for_write():
            write, _ = self._writes[0]
            try:
                write()
            except (ServerAway, OSError) as error:
                self._say_away(error)
            except Exception as error:  # whatever a client raises, the training goes on
                if self._is_refused(error):
                    continue
            else:
                self._done()
                continue
            if not self._pause():
                return

    def _wait_for_write(self) -> bool:
        """Whether there is one; False at the end."""
        with self._changed:
            while not self._writes and self._closing_until is None:
                self._changed.wait()
            return bool(self._writes)

    def _pause(self) -> bool:
        """Wait before the next try; False if there is no time for one."""
        with self._changed:
            until = self._closing_until
            if until is not None and time.monotonic() + self._retry_s > until:
                return False
            self._changed.wait(self._retry_s)
            return True

    def _done(self) -> None:
        self._drop_first()
        self._num_refused = 0
        if self._is_away:
            logger.warning("%s answers again", self._what)
        self._is_away = False

    def _say_away(self, error: Exception) -> None:
        if not self._is_away:
            text = "%s fails (%s); writes are kept until it answers"
            logger.warning(text, self._what, _line(error))
        self._is_away = True

    def _is_refused(self, error: Exception) -> bool:
        """Count a try that the server did not take; whether the write is given up."""
        self._num_refused += 1
        if self._num_refused < _MOST_TRIES:
            return False
        if self._num_refused == _MOST_TRIES:
            text = "%s refuses a write (%s); it is left out, and so are others that it refuses"
            logger.warning(text, self._what, _line(error))
        self._drop_first()
        self._num_lost += 1
        return True

    def _drop_first(self) -> None:
        with self._changed:
            _, num_bytes = self._writes.popleft()
            self._num_bytes -= num_bytes


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
