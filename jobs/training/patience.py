"""Waiting for servers that are away: storage and MLflow may stop answering for a while."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TypeVar

from jobs.away import ServerAway

logger = logging.getLogger(__name__)

_FIRST_WAIT_S, _LONGEST_WAIT_S = 1.0, 30.0

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


class BackgroundWriter:
    """Does writes in order on a thread of its own, each until it succeeds; nothing waits for it.

    Args:
        what: The server, for messages.
        retry_s: Pause after a failure, in seconds.
    """

    def __init__(self, what: str, retry_s: float = 5.0) -> None:
        self._what = what
        self._retry_s = retry_s
        self._writes: deque[Callable[[], None]] = deque()
        self._changed = threading.Condition()
        self._closing_until: float | None = None
        self._thread = threading.Thread(target=self._run, name=f"write to {what}", daemon=True)
        self._thread.start()

    def add(self, write: Callable[[], None]) -> None:
        """Put a write at the end of the queue."""
        with self._changed:
            self._writes.append(write)
            self._changed.notify()

    def close(self, patience_s: float) -> None:
        """Wait for what is queued, for at most ``patience_s``; say how much is lost."""
        with self._changed:
            self._closing_until = time.monotonic() + patience_s
            self._changed.notify()
        self._thread.join()
        if self._writes:
            logger.warning("%d writes to %s are lost", len(self._writes), self._what)

    def _run(self) -> None:
        away = False
        while True:
            with self._changed:
                while not self._writes and self._closing_until is None:
                    self._changed.wait()
                if not self._writes:
                    return
            try:
                self._writes[0]()
            except Exception as error:  # whatever a client raises, the training goes on
                failure = error
            else:
                self._writes.popleft()
                if away:
                    logger.warning("%s answers again", self._what)
                away = False
                continue
            if not away:
                text = " ".join(str(failure).split())
                logger.warning("%s fails (%s); writes are kept until it answers", self._what, text)
            away = True
            with self._changed:
                until = self._closing_until
                if until is not None and time.monotonic() + self._retry_s > until:
                    return
                self._changed.wait(self._retry_s)
