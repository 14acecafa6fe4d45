"""Completion markers: which steps of a workflow are done, and with what.

A marker is written last and holds a hash of the settings and of the inputs of its step. A step
whose marker matches is not run again; a step that was killed has no marker and continues from
what its job left in the output folder.
"""

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from jobs.provenance import json_hash


@dataclass(frozen=True)
class StepKey:
    """What a step depends on.

    Attributes:
        settings: Hash of the settings of the step.
        inputs: Hash of what the steps before it handed over.
    """

    settings: str
    inputs: str


@dataclass(frozen=True)
class Marker:
    """A finished step: what it ran with, what it handed over, and how long it took."""

    key: StepKey
    outputs: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0


class Markers:
    """The markers of one workspace.

    Args:
        folder: Where they lie, one JSON file a step.
        archive: Where outputs of other settings are kept.
    """

    def __init__(self, folder: Path, archive: Path) -> None:
        self._folder = folder
        self._archive = archive

    def finished(self, step: str, key: StepKey) -> Marker | None:
        """Return the marker of a step that ran with this key and whose outputs still exist."""
        marker = self.last(step)
        if marker is None or marker.key != key:
            return None
        return marker if _files_exist(marker.outputs) else None

    def last(self, step: str) -> Marker | None:
        """Return the marker of a step, whatever it ran with; None if it never finished."""
        data = _read_json(self._folder / f"{step}.json")
        if data is None:
            return None
        return Marker(StepKey(**data["key"]), data["outputs"], data["seconds"])

    def begin(self, step: str, key: StepKey, output: Path, *, replaces: bool) -> None:
        """Note that a step starts with this key.

        The output folder of a step that ``replaces`` is moved into the archive if it was written
        with other settings. It stays when only the inputs changed: the job adds what is new.
        """
        started = self._folder / f"{step}.started.json"
        before = _read_json(started)
        if before is not None and before != asdict(key):
            other_settings = before["settings"] != key.settings
            if replaces and other_settings and output.exists():
                self._set_aside(output, StepKey(**before))
        (self._folder / f"{step}.json").unlink(missing_ok=True)
        _write_json(started, asdict(key))

    def finish(self, step: str, marker: Marker) -> None:
        """Write the marker; the last thing a step does."""
        _write_json(self._folder / f"{step}.json", asdict(marker))

    def _set_aside(self, output: Path, key: StepKey) -> None:
        self._archive.mkdir(parents=True, exist_ok=True)
        place = self._archive / f"{output.name}-{json_hash(asdict(key))[:8]}"
        if place.exists():
            shutil.rmtree(place)
        output.rename(place)


def _files_exist(outputs: Mapping[str, Any]) -> bool:
    """Whether the local paths among the outputs, the values of ``*_uri``, are still there."""
    paths = [Path(value) for name, value in outputs.items() if name.endswith("_uri") and value]
    return all(path.exists() for path in paths)


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return data if isinstance(data, dict) else None


def _write_json(path: Path, data: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    with partial.open("w", encoding="utf-8") as file:
        json.dump(data, file, indent=2, default=str)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
