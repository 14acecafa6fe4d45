"""The folder a workflow writes into, and the lock that gives it to one run at a time."""

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from i2l_model.errors import InputError

DEFAULT_ROOT = Path("i2l-workspace")
_FOLDERS = {"predictor": "training"}  # it holds predictor/ and checkpoints/


class Workspace:
    """Names of everything below the workspace folder.

    Args:
        root: The folder; it is made when the first run starts.
    """

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root).expanduser().resolve()
        self.state = self.root / "state"
        self.archive = self.root / "archive"
        self.tracking = self.root / "mlflow"
        self.dagster_home = self.root / "dagster"
        self.index_page = self.root / "index.html"
        self.log_file = self.root / "logs" / "run.log"

    def folder(self, step: str) -> Path:
        """Return the folder that a step writes its outputs into."""
        return self.root / _FOLDERS.get(step, step)

    def create(self) -> None:
        """Make the folder.

        Raises:
            InputError: If it cannot be made or written.
        """
        if self.root.exists() and not self.root.is_dir():
            raise InputError("--workspace", self.root, "is a file", "name a folder")
        try:
            for folder in (self.root, self.state, self.log_file.parent):
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                "--workspace", self.root, f"cannot be written: {error.strerror}", "name another"
            ) from None

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the workspace for this process.

        The kernel drops the lock with the process, so a killed run never leaves one behind.

        Raises:
            InputError: If another process holds it.
        """
        with (self.state / "lock").open("a+", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise self._busy(file.name) from None
            file.truncate(0)
            json.dump({"pid": os.getpid(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}, file)
            file.flush()
            try:
                yield
            finally:
                file.truncate(0)

    def _busy(self, lock: str) -> InputError:
        try:
            holder: dict[str, Any] = json.loads(Path(lock).read_text(encoding="utf-8"))
            who = f"pid {holder['pid']} since {holder['since']}"
        except (OSError, ValueError, KeyError):
            who = "another process"
        return InputError(
            "--workspace",
            self.root,
            f"is in use by a run ({who})",
            "wait for that run, or name another --workspace",
        )
