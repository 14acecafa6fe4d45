"""What the command line prints and which exit code it returns when something goes wrong."""

import errno
import os
import re
import sys
import traceback

import typer
from pydantic import ValidationError

from i2l_model.errors import InputError
from pipelines.refusals import Refused

OK = 0
FAILED = 1
BAD_INPUT = 2
REFUSED = 3
INTERRUPTED = 130

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_SAYS_FULL = re.compile("|".join(re.escape(os.strerror(code)) for code in _DISK_FULL))


def report(error: BaseException, *, command: str, debug: bool, log_file: str | None) -> int:
    """Print one line (a refusal: one line a reason) on stderr and return the exit code.

    Args:
        error: What the command raised.
        command: The command as typed, e.g. "i2l mine", for the advice.
        debug: Whether to print the traceback of a failure too.
        log_file: File that holds the log of this command, if there is one.
    """
    if isinstance(error, Refused):
        _print(f"refused: {error.subject}")
        for reason in error.reasons:
            _print(f"  {reason}")
        return REFUSED
    if isinstance(error, (InputError, typer.TyperException, ValidationError)):
        if debug:
            traceback.print_exception(error, file=sys.stderr)
        line = _input_line(error, command)
        if line:
            _print(f"error: {line}")
        return BAD_INPUT
    disk_full = _disk_full(error)
    if disk_full:
        _print(f"error: the disk is full ({disk_full}); free space, then run {command} again")
        return BAD_INPUT
    if isinstance(error, (KeyboardInterrupt, typer.Abort)):
        _print("interrupted; the same command continues where it stopped")
        return INTERRUPTED
    if debug:
        traceback.print_exception(error, file=sys.stderr)
    _print(f"error: {_one_line(error)}")
    _print(_hint(command, debug, log_file))
    return FAILED


def _input_line(error: BaseException, command: str) -> str:
    """Field, value and fix; "" where nothing is to be said, the help being shown already."""
    if isinstance(error, typer.TyperException):
        message = _one_line_text(error.format_message()).rstrip(".")
        return f"{message}; see {command} --help" if message else ""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or error.title
        fix = f"change it with --set; {command} --dry-run shows all settings"
        problem = InputError(field, first["input"], f"is invalid: {first['msg']}", fix)
        return str(problem)
    return _one_line_text(str(error))


def _disk_full(error: BaseException) -> str:
    """What says that a disk is full, among the errors behind a failure; "" if nothing does.

    Ray and Dagster wrap what their workers raise, and libraries that write without Python keep
    the system's message but not its number.
    """
    for current in _behind(error):
        if isinstance(current, OSError) and current.errno in _DISK_FULL:
            return _one_line(current)
    texts = [str(current) for current in _behind(error)]
    lines = [line for text in reversed(texts) for line in text.splitlines()]
    return next((_one_line_text(line) for line in reversed(lines) if _SAYS_FULL.search(line)), "")


def _behind(error: BaseException) -> list[BaseException]:
    """The error and all that it wraps, each once, outermost first."""
    found: list[BaseException] = []
    queue: list[object] = [error]
    while queue:
        current = queue.pop(0)
        if isinstance(current, BaseException) and not any(current is other for other in found):
            found.append(current)
            queue += (getattr(current, "worker_failures", None) or {}).values()
            wrapped = ("__cause__", "__context__", "cause", "_base_exc")
            queue += [getattr(current, name, None) for name in wrapped]
    return found


def _hint(command: str, debug: bool, log_file: str | None) -> str:
    if log_file:
        return f"the log is in {log_file}"
    return "the traceback is above" if debug else f"add --debug to {command} for the traceback"


def _one_line(error: BaseException) -> str:
    text = _one_line_text(str(error))
    name = type(error).__name__
    return f"{name}: {text}" if text else name


def _one_line_text(text: str, limit: int = 500) -> str:
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 3] + "..."


def _print(line: str) -> None:
    print(line, file=sys.stderr)
