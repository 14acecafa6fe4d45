"""Progress from the training worker to the driver: JSON lines in the run's output folder."""

import json
import logging
import threading
from typing import Any

from i2l_model.errors import InputError
from jobs import storage
from jobs.progress import Progress

logger = logging.getLogger(__name__)

PROGRESS_FILE = "progress.jsonl"


class ProgressWriter:
    """Appends progress lines; only rank 0 writes.

    Args:
        output_uri: Output folder of the run.
    """

    def __init__(self, output_uri: str) -> None:
        self._uri = storage.join_uri(output_uri, PROGRESS_FILE)
        self._local = None if storage.is_s3(self._uri) else storage.local_path(self._uri)
        self._lines: list[str] = []

    def update(self, stage: str, done: int, total: int, note: str = "") -> None:
        """Report the state of a stage."""
        self._write({"stage": stage, "done": done, "total": total, "note": note})

    def message(self, text: str) -> None:
        """Say something once, e.g. that the run was resumed."""
        self._write({"message": text})

    def _write(self, event: dict[str, Any]) -> None:
        line = json.dumps(event) + "\n"
        if self._local is not None:
            with self._local.open("a", encoding="utf-8") as stream:
                stream.write(line)
            return
        lines = [*self._lines, line]  # objects cannot be appended to
        storage.write_bytes(self._uri, "".join(lines).encode())
        self._lines = lines


class ProgressFollower:
    """Feeds a `Progress` from the lines that the worker writes, until the block ends.

    Args:
        output_uri: Output folder of the run; lines of an earlier run are removed.
        progress: Receives the updates.
        interval_s: Time between two looks, in seconds.
    """

    def __init__(self, output_uri: str, progress: Progress, interval_s: float = 0.5) -> None:
        self._uri = storage.join_uri(output_uri, PROGRESS_FILE)
        self._progress = progress
        self._interval_s = 5 * interval_s if storage.is_s3(output_uri) else interval_s
        self._num_read = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> "ProgressFollower":
        storage.delete(self._uri)
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stop.set()
        self._thread.join()
        self.poll()

    def _follow(self) -> None:
        while not self._stop.wait(self._interval_s):
            self.poll()

    def poll(self) -> None:
        """Pass on all complete lines that are new."""
        try:
            data = storage.read_bytes(self._uri)
        except (InputError, OSError):
            return  # not there yet; storage trouble shows in the training itself
        new = data[self._num_read :]
        complete = new[: new.rfind(b"\n") + 1]
        self._num_read += len(complete)
        for line in complete.decode().splitlines():
            event = json.loads(line)
            if "message" in event:
                logger.info("%s", event["message"])
            else:
                self._progress.update(**event)
