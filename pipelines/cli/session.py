"""What one call of the command line carries along: what it shows, and where its log is."""

import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from i2l_model.errors import InputError
from pipelines.refusals import Refused

if TYPE_CHECKING:
    from jobs.progress import Progress

# Nothing is sent home, whatever the user's settings are; the rest keeps libraries quiet.
_ENVIRONMENT = {
    "DAGSTER_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "GRADIO_ANALYTICS_ENABLED": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_TRAIN_V2_ENABLED": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "TOKENIZERS_PARALLELISM": "false",
}
_OWN_PACKAGES = ("i2l_model", "jobs", "pipelines")
_CHATTY_LIBRARIES = ("alembic", "faiss", "httpx", "urllib3")
_PROGRESS_LOGGER = "jobs.progress"

logger = logging.getLogger(__name__)


def quiet_libraries() -> None:
    """Set the environment that libraries read when they are imported."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)


@dataclass
class Session:
    """State of one call.

    Attributes:
        debug: Whether failures print their traceback and the log has more.
        log_file: Where the log of this command is, if it has one.
    """

    debug: bool = False
    log_file: Path | None = None

    @contextmanager
    def job(self) -> Iterator["Progress"]:
        """Run a job that has no log of its own, with a log that stays only if the job fails.

        Yields:
            What the job reports its progress to.
        """
        handle, name = tempfile.mkstemp(prefix="i2l-", suffix=".log")
        os.close(handle)
        try:
            with self.logged(Path(name)) as terminal, _progress_on(terminal) as progress:
                yield progress
        except (InputError, Refused, KeyboardInterrupt):
            self._drop_log()
            raise
        self._drop_log()

    @contextmanager
    def logged(self, log_file: Path) -> Iterator[TextIO]:
        """Send the log, and whatever libraries print, into a file.

        The terminal shows progress and the warnings of our own code alone.

        Args:
            log_file: The file; its folder exists.

        Yields:
            A stream to the terminal.
        """
        self.log_file = log_file
        with _output_in(log_file) as terminal:
            self._start_logging(log_file, terminal)
            try:
                yield terminal
            except (InputError, Refused):
                raise
            except Exception:
                logger.exception("the command failed")
                raise
            finally:
                logging.basicConfig(handlers=[logging.NullHandler()], force=True)

    def _drop_log(self) -> None:
        if self.log_file is not None:
            self.log_file.unlink(missing_ok=True)
            self.log_file = None

    def _start_logging(self, log_file: Path, terminal: TextIO) -> None:
        short = logging.StreamHandler(terminal)
        short.setFormatter(logging.Formatter("%(message)s"))
        short.addFilter(_belongs_on_terminal)
        full = logging.FileHandler(log_file, encoding="utf-8")
        full.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        logging.basicConfig(level=logging.INFO, handlers=[short, full], force=True)
        for name in _OWN_PACKAGES:
            logging.getLogger(name).setLevel(logging.DEBUG if self.debug else logging.INFO)
        for name in _CHATTY_LIBRARIES:
            logging.getLogger(name).setLevel(logging.WARNING)
        logging.captureWarnings(True)


@contextmanager
def _progress_on(terminal: TextIO) -> Iterator["Progress"]:
    """Bars on a terminal, log lines elsewhere."""
    from jobs.progress import LogProgress, RichProgress

    if not terminal.isatty():
        yield LogProgress()
        return
    from rich.console import Console

    with RichProgress(Console(file=terminal)) as bars:
        yield bars


@contextmanager
def _output_in(log_file: Path) -> Iterator[TextIO]:
    """Point the descriptors of stdout and stderr at a file, for what is printed outside Python too.

    Yields:
        The stderr there was before.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    before = [os.dup(1), os.dup(2)]
    with log_file.open("a", encoding="utf-8") as file:
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)
    try:
        with os.fdopen(os.dup(before[1]), "w", encoding="utf-8", buffering=1) as terminal:
            yield terminal
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for descriptor, old in zip((1, 2), before, strict=True):
            os.dup2(old, descriptor)
            os.close(old)


def _belongs_on_terminal(record: logging.LogRecord) -> bool:
    ours = record.name.startswith(_OWN_PACKAGES) and record.name != __name__
    warns = record.levelno >= logging.WARNING and ours
    return warns or record.name == _PROGRESS_LOGGER
