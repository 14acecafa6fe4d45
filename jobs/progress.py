"""How far a job is: a bar on a terminal, one line an interval in a log."""

import logging
import time
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichBars

logger = logging.getLogger(__name__)


class Progress(Protocol):
    """Receives the state of the running stage."""

    def update(self, stage: str, done: int, total: int | None = None, note: str = "") -> None:
        """Report that ``done`` of ``total`` items of ``stage`` are finished.

        Args:
            stage: Name of the stage, e.g. "train".
            done: Finished items, counted from the start of the stage.
            total: All items of the stage; None while unknown.
            note: Short state worth showing, e.g. "loss 0.142".
        """
        ...


class NullProgress:
    """Shows nothing."""

    def update(self, stage: str, done: int, total: int | None = None, note: str = "") -> None:
        """Ignore the report."""


class LogProgress:
    """One log line a stage and interval, and one when a stage is complete.

    Args:
        interval_s: Least time between two lines of one stage, in seconds.
    """

    def __init__(self, interval_s: float = 15.0) -> None:
        self.interval_s = interval_s
        self._started: dict[str, tuple[float, int]] = {}
        self._last_line: dict[str, float] = {}
        self._complete: set[str] = set()

    def update(self, stage: str, done: int, total: int | None = None, note: str = "") -> None:
        """Write a line if the interval has passed or the stage is complete."""
        now = time.monotonic()
        self._started.setdefault(stage, (now, done))
        complete = total is not None and done >= total
        if complete and stage in self._complete:
            return
        if not complete and now - self._last_line.get(stage, -self.interval_s) < self.interval_s:
            return
        self._last_line[stage] = now
        (self._complete.add if complete else self._complete.discard)(stage)
        count = f"{done}" if total is None else f"{done}/{total}"
        parts = [f"{stage} {count}", note, self._remaining(stage, done, total, now)]
        logger.info(", ".join(part for part in parts if part))

    def _remaining(self, stage: str, done: int, total: int | None, now: float) -> str:
        started, first = self._started[stage]
        if total is None or done >= total or done <= first:
            return ""
        seconds = (now - started) / (done - first) * (total - done)
        return f"{seconds:.0f} s left" if seconds < 120 else f"{seconds / 60:.0f} min left"


class RichProgress:
    """One bar a stage on a terminal.

    The bars appear with the first report and are closed by ``close`` or by leaving the ``with``
    block.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._bars = RichBars(
            TextColumn("{task.description:>12}"),
            BarColumn(bar_width=32),
            MofNCompleteColumn(),
            TimeRemainingColumn(compact=True, elapsed_when_finished=True),
            TextColumn("[dim]{task.fields[note]}"),
            console=console or Console(stderr=True),
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> "RichProgress":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def update(self, stage: str, done: int, total: int | None = None, note: str = "") -> None:
        """Move the stage's bar, opening it first where needed."""
        if not self._tasks:
            self._bars.start()
        if stage not in self._tasks:
            self._tasks[stage] = self._bars.add_task(stage, total=total, note=note)
        self._bars.update(self._tasks[stage], completed=done, total=total, note=note)

    def close(self) -> None:
        """Leave the bars as they are and give the terminal back."""
        self._bars.stop()
