import errno
import os

import pytest
from ray.exceptions import RayTaskError
from ray.train.v2.api.exceptions import WorkerGroupError

from i2l_model.errors import InputError
from pipelines.cli import failures
from pipelines.refusals import Refused


def test_bad_input_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    error = InputError("--input", "x", "does not exist", "check it")
    assert failures.report(error, command="i2l mine", debug=False, log_file=None) == 2
    assert capsys.readouterr().err == "error: --input (x) does not exist; check it\n"


def test_a_refusal_lists_its_reasons(capsys: pytest.CaptureFixture[str]) -> None:
    error = Refused("gate of models:/m/1", ["leakage: 0.2", "copied: 0.5"])
    assert failures.report(error, command="i2l promote", debug=False, log_file=None) == 3
    assert capsys.readouterr().err == (
        "refused: gate of models:/m/1\n  leakage: 0.2\n  copied: 0.5\n"
    )


@pytest.mark.parametrize(
    ("log_file", "hint"),
    [(None, "add --debug to i2l run for the traceback"), ("run.log", "the log is in run.log")],
)
def test_another_failure_is_one_line_and_a_hint(
    capsys: pytest.CaptureFixture[str], log_file: str | None, hint: str
) -> None:
    error = RuntimeError("worker died\nat step 3")
    assert failures.report(error, command="i2l run", debug=False, log_file=log_file) == 1
    assert capsys.readouterr().err == f"error: RuntimeError: worker died at step 3\n{hint}\n"


def test_a_full_disk_is_named_also_behind_other_errors(capsys: pytest.CaptureFixture[str]) -> None:
    error = RuntimeError("worker died")
    error.__cause__ = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "data/x.tar")
    assert failures.report(error, command="i2l mine", debug=False, log_file=None) == 2
    found = capsys.readouterr().err
    assert found.startswith("error: the disk is full (")
    assert found.endswith("free space, then run i2l mine again\n")


@pytest.mark.parametrize(
    "error",
    [
        RayTaskError("f", "Traceback ...", OSError(errno.ENOSPC, "No space left on device")),
        RayTaskError(
            "f", "Traceback ...", OSError(errno.ENOSPC, "No space left on device")
        ).as_instanceof_cause(),
        WorkerGroupError("failed", {0: OSError(errno.EDQUOT, "Disk quota exceeded")}),
        RuntimeError("trace\n  File x\nSafetensorError: No space left on device (os error 28)\n"),
    ],
)
def test_a_full_disk_of_a_worker_is_named(
    error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    assert failures.report(error, command="i2l mine", debug=False, log_file=None) == 2
    found = capsys.readouterr().err
    assert found.startswith("error: the disk is full (")
    assert "Traceback" not in found
    assert "File x" not in found
    assert found.count("\n") == 1


def test_debug_adds_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        raise RuntimeError("worker died")
    except RuntimeError as error:
        failures.report(error, command="i2l run", debug=True, log_file=None)
    assert "Traceback" in capsys.readouterr().err


def test_an_interrupt_says_that_the_run_can_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert failures.report(KeyboardInterrupt(), command="i2l", debug=False, log_file=None) == 130
    assert "continues" in capsys.readouterr().err
