"""The workflow in this process, without any server."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import dagster as dg

from jobs.progress import Progress
from pipelines.index_page import write_index_page
from pipelines.recipe import Recipe
from pipelines.runner import Display, StepRunner
from pipelines.steps import Outputs, StepContext
from pipelines.workflow import ASSET_CHECKS, ASSETS, STEPS
from pipelines.workspace import Workspace

logger = logging.getLogger(__name__)

# Dagster's own capture of the output would swallow the progress display.
_DAGSTER_SETTINGS = """\
telemetry:
  enabled: false
nux:
  enabled: false
compute_logs:
  module: dagster._core.storage.noop_compute_log_manager
  class: NoOpComputeLogManager
"""
_INTERRUPTS = (KeyboardInterrupt, SystemExit, dg.DagsterExecutionInterruptedError)
_RUN_CONFIG = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@dataclass(frozen=True)
class WorkflowResult:
    """What a run leaves.

    Attributes:
        outputs: What each step handed over, by step.
        did_nothing: Whether everything was done already.
    """

    outputs: dict[str, Outputs]
    did_nothing: bool


def run_workflow(
    recipe: Recipe, workspace: Workspace, progress: Progress, display: Display
) -> WorkflowResult:
    """Run what is not done yet of the workflow, up to the champion.

    A run that was killed or failed is continued by calling this again: finished steps are
    skipped, and the interrupted one continues from what its job left.

    Args:
        recipe: Settings of all steps.
        workspace: Where everything is written; one run at a time.
        progress: Receives how far the running job is.
        display: Shows steps and checks.

    Raises:
        InputError: If the workspace is in use or cannot be written, or a step finds bad input.
        Refused: If a check says no.
    """
    workspace.create()
    with workspace.locked():
        runner = StepRunner(StepContext(recipe, workspace, progress), display)
        did_nothing = all(runner.done(step) for step in STEPS)
        if did_nothing:
            logger.info("everything is done already")
        else:
            try:
                _materialize(runner, workspace)
            finally:
                write_index_page(runner.context)
        return WorkflowResult(runner.context.outputs, did_nothing)


def _materialize(runner: StepRunner, workspace: Workspace) -> None:
    with (
        _dagster_home(workspace.dagster_home),
        dg.DagsterInstance.get() as instance,
        _own_ray(),
    ):
        dg.materialize(
            [*ASSETS, *ASSET_CHECKS],
            resources={"runner": runner},
            instance=instance,
            run_config=_RUN_CONFIG,
            raise_on_error=False,
        )
    if runner.problem is not None:
        if _was_interrupted(runner.problem):
            raise KeyboardInterrupt from runner.problem
        raise runner.problem


def _was_interrupted(problem: BaseException) -> bool:
    """Whether a signal stopped the step; Dagster, Ray and Ray Train each turn it into their own."""
    error: BaseException | None = problem
    while error is not None:
        if isinstance(error, _INTERRUPTS):
            return True
        error = error.__cause__ or error.__context__
    return False


@contextmanager
def _dagster_home(folder: Path) -> Iterator[None]:
    """Keep the history of runs in the workspace, so that Dagster's UI can show it later."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "dagster.yaml").write_text(_DAGSTER_SETTINGS, encoding="utf-8")
    before = os.environ.get("DAGSTER_HOME")
    os.environ["DAGSTER_HOME"] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ["DAGSTER_HOME"]
        else:
            os.environ["DAGSTER_HOME"] = before


@contextmanager
def _own_ray() -> Iterator[None]:
    """Shut down the Ray that the jobs started, and leave one that was there before."""
    import ray

    was_there = ray.is_initialized()
    try:
        yield
    finally:
        if not was_there and ray.is_initialized():
            ray.shutdown()
