"""Progress from the training worker to the driver: JSON lines in the run's output folder.

On a disk one file grows. Objects in S3 cannot be appended to, and writing a week's lines anew with
each line would move hundreds of gigabytes: there a further object begins every few lines.
"""

import json
import logging
import threading
from typing import Any

from i2l_model.errors import InputError
from jobs import storage
from jobs.progress import Progress

logger = logging.getLogger(__name__)

PROGRESS_FILE = "progress.jsonl"
LINES_A_PART = 200
"""Lines of one object in S3; the first one has the name of the file."""

_EVENTS = ({"message"}, {"stage", "done", "total", "note"})  # keys of what a line may tell


def part_uri(output_uri: str, part: int) -> str:
    """Where the lines of a part are, counted from 0; on a disk there is one part."""
    name = f"progress-{part:05d}.jsonl" if part else PROGRESS_FILE
    return storage.join_uri(output_uri, name)


def _parts(output_uri: str) -> list[str]:
    """The parts that may be there, in no particular order."""
    if not storage.is_s3(output_uri):
        return [part_uri(output_uri, 0)]
    return storage.list_files(output_uri, ".jsonl", name_prefix="progress")


class ProgressWriter:
    """Appends progress lines; only rank 0 writes.

    Args:
        output_uri: Output folder of the run. A worker that was started again goes on with the
            lines that are there.
    """

    def __init__(self, output_uri: str) -> None:
        self._output_uri = output_uri
        self._part = 0
        self._lines: list[str] | None = None  # of the part; None until what is there was read

    def update(self, stage: str, done: int, total: int, note: str = "") -> None:
        """Report the state of a stage."""
        self._write({"stage": stage, "done": done, "total": total, "note": note})

    def message(self, text: str) -> None:
        """Say something once, e.g. that the run was resumed."""
        self._write({"message": text})

    def _write(self, event: dict[str, Any]) -> None:
        line = json.dumps(event) + "\n"
        if storage.is_s3(self._output_uri):
            self._write_object(line)
            return
        path = storage.local_path(part_uri(self._output_uri, 0))
        with path.open("a", encoding="utf-8") as stream:
            stream.write(line)

    def _write_object(self, line: str) -> None:
        if self._lines is None:
            self._part, self._lines = self._last_part()
        if len(self._lines) >= LINES_A_PART:
            self._part, self._lines = self._part + 1, []
        lines = [*self._lines, line]
        storage.write_bytes(part_uri(self._output_uri, self._part), "".join(lines).encode())
        self._lines = lines

    def _last_part(self) -> tuple[int, list[str]]:
        """Number and lines of the newest object."""
        num_parts = len(_parts(self._output_uri))
        if not num_parts:
            return 0, []
        data = storage.read_bytes(part_uri(self._output_uri, num_parts - 1))
        return num_parts - 1, data.decode().splitlines(keepends=True)


class ProgressFollower:
    """Feeds a `Progress` from the lines that the worker writes, until the block ends.

    Args:
        output_uri: Output folder of the run; lines of an earlier run are removed.
        progress: Receives the updates.
        interval_s: Time between two looks, in seconds.
    """

    def __init__(self, output_uri: str, progress: Progress, interval_s: float = 0.5) -> None:
        self._output_uri = output_uri
        self._progress = progress
        self._in_parts = storage.is_s3(output_uri)
        self._interval_s = 5 * interval_s if self._in_parts else interval_s
        self._part, self._num_bytes, self._num_lines = 0, 0, 0  # read so far, of the part
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> "ProgressFollower":
        for uri in _parts(self._output_uri):
            storage.delete(uri)
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
            while self._poll_part():
                self._part, self._num_bytes, self._num_lines = self._part + 1, 0, 0
        except (InputError, OSError):
            return  # not there yet; storage trouble shows in the training itself

    def _poll_part(self) -> bool:
        """Pass on the new lines of this part; whether it is full, so that another follows."""
        uri = part_uri(self._output_uri, self._part)
        num_new = storage.file_size(uri) - self._num_bytes
        if num_new > 0:
            new = storage.read_range(uri, self._num_bytes, num_new)
            lines = new.split(b"\n")[:-1]
            self._num_bytes += sum(len(line) + 1 for line in lines)
            self._num_lines += len(lines)
            for line in lines:
                self._pass_on(line)
        return self._in_parts and self._num_lines >= LINES_A_PART

    def _pass_on(self, line: bytes) -> None:
        try:
            event = json.loads(line)
        except ValueError:
            event = None
        if not isinstance(event, dict) or event.keys() not in _EVENTS:
            # A worker may be killed while it writes; the next one's line goes on in the middle.
            logger.warning("a line of progress cannot be read: %r", line[:200])
        elif "message" in event:
            logger.info("%s", event["message"])
        else:
            self._progress.update(**event)
