import contextlib
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from jobs.progress import NullProgress
from pipelines.markers import Marker
from pipelines.recipe import Recipe
from pipelines.refusals import Refused
from pipelines.runner import Check, Step, StepRunner
from pipelines.steps import StepContext
from pipelines.workspace import Workspace


class FakeRecipe:
    """Settings as a recipe gives them, without the jobs behind it."""

    def __init__(self, **settings: Any) -> None:
        self.settings = settings

    def model_dump(self, *, mode: str, include: set[str]) -> dict[str, Any]:
        return {name: value for name, value in self.settings.items() if name in include}


class Recorder:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def started(self, step: Step) -> None:
        self.lines.append(f"started {step.name}")

    def finished(self, step: Step, marker: Marker, *, reused: bool) -> None:
        self.lines.append(f"{'reused' if reused else 'finished'} {step.name}")

    def failed(self, name: str) -> None:
        self.lines.append(f"failed {name}")

    def judged(self, check: Check, reasons: Sequence[str]) -> None:
        self.lines.append(f"judged {check.name}: {len(reasons)}")


def make_runner(root: Path, **settings: Any) -> StepRunner:
    workspace = Workspace(root)
    workspace.create()
    recipe = cast(Recipe, FakeRecipe(**settings))
    return StepRunner(StepContext(recipe, workspace, NullProgress()), Recorder())


def lines(runner: StepRunner) -> list[str]:
    return runner._display.lines  # type: ignore[attr-defined, no-any-return]


def write_shards(context: Any) -> dict[str, Any]:
    """Write shards."""
    number = context.recipe.settings.get("shards", {}).get("seed", 0)
    return {"content": f"shards {number}"}


def mine(context: Any) -> dict[str, Any]:
    """Mine pairs."""
    return {"content": "pairs of " + context.outputs["shards"]["content"]}


SHARDS = Step("shards", write_shards, settings=("shards",))
PAIRS = Step("pairs", mine, needs=("shards",), settings=("mining",))


def run_all(root: Path, **settings: Any) -> list[str]:
    runner = make_runner(root, **settings)
    for step in (SHARDS, PAIRS):
        runner.run(step)
    return lines(runner)


def test_steps_run_once(tmp_path: Path) -> None:
    first = run_all(tmp_path, mining={"refs": 4})
    assert first == ["started shards", "finished shards", "started pairs", "finished pairs"]
    assert run_all(tmp_path, mining={"refs": 4}) == ["reused shards", "reused pairs"]


def test_changed_settings_run_their_step_again(tmp_path: Path) -> None:
    run_all(tmp_path, mining={"refs": 4})
    assert run_all(tmp_path, mining={"refs": 2}) == [
        "reused shards", "started pairs", "finished pairs"
    ]  # fmt: skip


def test_a_changed_output_runs_what_needs_it_again(tmp_path: Path) -> None:
    run_all(tmp_path)
    again = run_all(tmp_path, shards={"seed": 5})
    assert again == ["started shards", "finished shards", "started pairs", "finished pairs"]


def test_the_spread_of_the_work_makes_nothing_stale(tmp_path: Path) -> None:
    run_all(tmp_path, mining={"refs": 4, "workers": {"num_ingest": 2}})
    again = run_all(tmp_path, mining={"refs": 4, "workers": {"num_ingest": 8}})
    assert again == ["reused shards", "reused pairs"]


def test_a_failed_step_is_tried_again_and_those_before_it_are_not(tmp_path: Path) -> None:
    def fail(context: Any) -> dict[str, Any]:
        raise OSError("disk full")

    runner = make_runner(tmp_path)
    runner.run(SHARDS)
    with pytest.raises(OSError, match="disk full"):
        runner.run(Step("pairs", fail, needs=("shards",)))
    assert isinstance(runner.problem, OSError)
    assert lines(runner)[-1] == "failed pairs"
    assert run_all(tmp_path) == ["reused shards", "started pairs", "finished pairs"]


def test_a_step_by_itself_finds_what_the_one_before_left(tmp_path: Path) -> None:
    run_all(tmp_path)
    runner = make_runner(tmp_path, mining={"refs": 1})
    assert runner.run(PAIRS).outputs == {"content": "pairs of shards 0"}


def test_an_outside_change_runs_the_step_again(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    step = Step("shards", write_shards, outside=lambda _: sorted(p.name for p in folder.iterdir()))
    make_runner(tmp_path).run(step)
    assert make_runner(tmp_path).done(step)
    (folder / "new.png").touch()
    assert make_runner(tmp_path).done(step) is None


def test_what_was_undone_outside_runs_the_step_again(tmp_path: Path) -> None:
    there = tmp_path / "there"

    def register(context: Any) -> dict[str, Any]:
        there.touch()
        return {"content": "v1", "version": 1}

    step = Step(
        "version", register, holds=lambda _, outputs: there.is_file() and outputs["version"]
    )
    make_runner(tmp_path).run(step)
    assert make_runner(tmp_path).done(step)
    there.unlink()
    runner = make_runner(tmp_path)
    assert runner.done(step) is None
    assert "version" not in runner.context.outputs
    runner.run(step)
    assert there.is_file()


def test_a_refusing_check_is_the_problem_of_the_run(tmp_path: Path) -> None:
    runner = make_runner(tmp_path)
    runner.run(SHARDS)
    reasons = ["3 pairs in split test, at least 8 needed"]
    assert runner.check(Check("acceptance", of="shards", run=lambda _: reasons)) == reasons
    assert isinstance(runner.problem, Refused)
    assert runner.problem.reasons == tuple(reasons)


def test_a_passing_check_is_no_problem(tmp_path: Path) -> None:
    runner = make_runner(tmp_path)
    runner.run(SHARDS)
    assert runner.check(Check("acceptance", of="shards", run=lambda _: [])) == []
    assert runner.problem is None
    assert lines(runner)[-1] == "judged acceptance: 0"


def test_the_first_problem_counts(tmp_path: Path) -> None:
    def fail(context: Any) -> dict[str, Any]:
        raise OSError("first")

    def fail_later(context: Any) -> dict[str, Any]:
        raise OSError("second")

    runner = make_runner(tmp_path)
    for name, action in (("a", fail), ("b", fail_later)):
        with pytest.raises(OSError, match=r"first|second"):
            runner.run(Step(name, action))
    assert str(runner.problem) == "first"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_a_step_even_if_a_library_swallows_it(
    tmp_path: Path, number: signal.Signals
) -> None:
    def work(context: Any) -> dict[str, Any]:
        with contextlib.suppress(KeyboardInterrupt):
            os.kill(os.getpid(), number)
            time.sleep(5)
        for done in range(100):
            context.progress.update("work", done)
        return {"content": "all done"}

    before = signal.getsignal(number)
    runner = make_runner(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        runner.run(Step("work", work))
    assert signal.getsignal(number) == before
    assert isinstance(runner.problem, KeyboardInterrupt)


def test_a_library_that_takes_the_handler_loses_it_with_the_next_progress(tmp_path: Path) -> None:
    def work(context: Any) -> dict[str, Any]:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        context.progress.update("work", 0)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
        return {"content": "all done"}

    with pytest.raises(KeyboardInterrupt):
        make_runner(tmp_path).run(Step("work", work))


def test_a_signal_that_comes_too_late_leaves_the_step_finished(tmp_path: Path) -> None:
    def work(context: Any) -> dict[str, Any]:
        with contextlib.suppress(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
        return {"content": "all done"}

    step = Step("work", work)
    with pytest.raises(KeyboardInterrupt):
        make_runner(tmp_path).run(step)
    assert make_runner(tmp_path).done(step)
