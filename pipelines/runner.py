"""Running the steps of a workflow: skip what is done, note what is finished, remember failures."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from jobs.provenance import json_hash, without_execution
from pipelines.interrupts import CheckedProgress, Interrupts
from pipelines.markers import Marker, Markers, StepKey
from pipelines.refusals import Refused
from pipelines.steps import Outputs, StepContext

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Step:
    """One step of the workflow.

    Attributes:
        name: Name of the step and of its asset.
        run: What it does; returns what later steps need, with a hash under "content".
        needs: Steps whose contents it depends on.
        settings: Parts of the recipe it depends on.
        outside: What it reads from outside the workspace, as a value that changes with it.
        holds: Whether what it wrote outside the workspace is still as it left it.
        replaces: Whether outputs of other settings have to make room, since the job does not
            tell them apart itself.
    """

    name: str
    run: Callable[[StepContext], Outputs]
    needs: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    outside: Callable[[StepContext], object] | None = None
    holds: Callable[[StepContext, Outputs], bool] | None = None
    replaces: bool = False

    @property
    def description(self) -> str:
        """First line of what the step says about itself."""
        return _first_line(self.run, self.name)


@dataclass(frozen=True)
class Check:
    """A question between two steps.

    Attributes:
        name: Name of the check.
        of: Step whose outputs are judged.
        run: Returns one line for every reason against going on; none when the check passes.
    """

    name: str
    of: str
    run: Callable[[StepContext], Sequence[str]]

    @property
    def description(self) -> str:
        """First line of what the check says about itself."""
        return _first_line(self.run, self.name)


class Display(Protocol):
    """What a person sees while the steps run."""

    def started(self, step: Step) -> None:
        """Show that a step runs now."""

    def finished(self, step: Step, marker: Marker, *, reused: bool) -> None:
        """Show that a step is done, now or in an earlier run."""

    def failed(self, name: str) -> None:
        """Show that a step or a check failed."""

    def judged(self, check: Check, reasons: Sequence[str]) -> None:
        """Show the outcome of a check."""


class StepRunner:
    """Runs steps and checks in one workspace.

    Args:
        context: Settings, places and progress of the run.
        display: What shows the steps to a person.

    Attributes:
        problem: What stopped the run: an error of a step or the refusal of a check.
    """

    def __init__(self, context: StepContext, display: Display) -> None:
        self._interrupts = Interrupts()
        progress = CheckedProgress(context.progress, self._interrupts)
        self.context = replace(context, progress=progress)
        self.problem: BaseException | None = None
        self._display = display
        self._markers = Markers(context.workspace.state, context.workspace.archive)

    def done(self, step: Step) -> Marker | None:
        """Return the marker of a step that need not run, and hand over its outputs."""
        if any(name not in self.context.outputs for name in step.needs):
            return None
        marker = self._markers.finished(step.name, self._key(step))
        if marker is None or (step.holds and not step.holds(self.context, marker.outputs)):
            return None
        self.context.outputs[step.name] = marker.outputs
        return marker

    def run(self, step: Step) -> Marker:
        """Run a step unless it is done, and write its marker last."""
        try:
            self._recall(step.needs)
            marker = self.done(step)
            if marker is None:
                return self._run(step)
            self._display.finished(step, marker, reused=True)
            return marker
        except BaseException as error:
            self._fail(step.name, error)
            raise

    def check(self, check: Check) -> Sequence[str]:
        """Return the reasons against going on; none when the check passes."""
        try:
            self._recall((check.of,))
            reasons = check.run(self.context)
        except BaseException as error:
            self._fail(check.name, error)
            raise
        self._display.judged(check, reasons)
        if reasons:
            self.problem = Refused(f"{check.name} of {check.of}", reasons)
        return reasons

    def _run(self, step: Step) -> Marker:
        key = self._key(step)
        folder = self.context.workspace.folder(step.name)
        self._display.started(step)
        logger.info("step %s starts", step.name)
        self._markers.begin(step.name, key, folder, replaces=step.replaces)
        start = time.monotonic()
        with self._interrupts.raised():
            outputs = step.run(self.context)
        marker = Marker(key, outputs, round(time.monotonic() - start, 1))
        self._markers.finish(step.name, marker)
        self.context.outputs[step.name] = outputs
        logger.info("step %s took %.1f s", step.name, marker.seconds)
        self._display.finished(step, marker, reused=False)
        if self._interrupts.received:  # it came too late to stop the step
            raise KeyboardInterrupt
        return marker

    def _fail(self, name: str, error: BaseException) -> None:
        if self.problem is None:
            self.problem = error
            self._display.failed(name)

    def _recall(self, names: Sequence[str]) -> None:
        """Hand over what other steps left in an earlier run, when a step runs by itself."""
        for name in names:
            marker = self._markers.last(name)
            if name not in self.context.outputs and marker is not None:
                self.context.outputs[name] = marker.outputs

    def _key(self, step: Step) -> StepKey:
        settings = self.context.recipe.model_dump(mode="json", include=set(step.settings))
        contents = {name: self.context.outputs[name]["content"] for name in step.needs}
        outside = step.outside(self.context) if step.outside else None
        return StepKey(json_hash(without_execution(settings)), json_hash([contents, outside]))


def _first_line(function: Callable[..., object], default: str) -> str:
    return (function.__doc__ or default).strip().splitlines()[0]
