"""Showing the steps of a run: ticks on a terminal, lines in a log."""

import logging
from collections.abc import Sequence

from rich.console import Console

from jobs.progress import LogProgress, RichProgress
from pipelines.markers import Marker
from pipelines.runner import Check, Step

logger = logging.getLogger(__name__)

_NAME_WIDTH = 12


class LogDisplay:
    """One log line for every step and check."""

    def started(self, step: Step) -> None:
        """Log the start of a step."""
        logger.info("%s: %s", step.name, step.description)

    def finished(self, step: Step, marker: Marker, *, reused: bool) -> None:
        """Log the end of a step."""
        logger.info("%s: %s", step.name, _how_long(marker, reused))

    def failed(self, name: str) -> None:
        """Log a failure."""
        logger.error("%s: failed", name)

    def judged(self, check: Check, reasons: Sequence[str]) -> None:
        """Log the outcome of a check."""
        logger.info("%s: %s", check.name, "; ".join(reasons) or "passed")


class ConsoleDisplay:
    """A tick and the seconds for every step, below it the bars of the running job.

    On a terminal each step has its own bars, which disappear when it is done; elsewhere the job's
    progress comes as plain lines.

    Args:
        console: Where to write, normally standard error.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars: RichProgress | None = None
        self._lines = None if console.is_terminal else LogProgress()

    def update(self, stage: str, done: int, total: int | None = None, note: str = "") -> None:
        """Show how far the running job is."""
        if self._bars is not None:
            self._bars.update(stage, done, total, note)
        if self._lines is not None:
            self._lines.update(stage, done, total, note)

    def started(self, step: Step) -> None:
        """Say what runs now."""
        self._line("[dim]…[/dim]", step.name, f"[dim]{step.description}[/dim]")
        if self._console.is_terminal:
            self._bars = RichProgress(self._console)

    def finished(self, step: Step, marker: Marker, *, reused: bool) -> None:
        """Tick the step off."""
        self._close()
        self._line("[green]✓[/green]", step.name, _how_long(marker, reused))

    def failed(self, name: str) -> None:
        """Mark the step as failed."""
        self._close()
        self._line("[red]✗[/red]", name, "failed")

    def judged(self, check: Check, reasons: Sequence[str]) -> None:
        """Tick the check off, or say that it refuses."""
        if reasons:
            self._line("[red]✗[/red]", check.name, "refuses")
        else:
            self._line("[green]✓[/green]", check.name, "passed")

    def _line(self, mark: str, name: str, text: str) -> None:
        self._console.print(f"{mark} {name:<{_NAME_WIDTH}} {text}", soft_wrap=True, highlight=False)

    def _close(self) -> None:
        if self._bars is not None:
            self._bars.close()
            self._bars = None


def _how_long(marker: Marker, reused: bool) -> str:
    return f"{marker.seconds:.1f} s" + (" (done in an earlier run)" if reused else "")
