"""Whole checkpoints: every file is listed with its hash, and only complete ones are resumed.

DeepSpeed's own files are pickles. They are read only from the run's storage and only after their
hashes were checked.
"""

import json
import logging
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch.distributed as dist
from pydantic import BaseModel, ConfigDict, ValidationError

from i2l_model.errors import InputError
from jobs import provenance, storage

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
STATE = "trainer_state.json"
DEEPSPEED_FOLDER = "deepspeed"
DEEPSPEED_TAG = "state"
_PREFIX = "step-"
_ATTEMPT = "attempt-"
_RESUME = "resume"


class TrainerState(BaseModel):
    """What a run carries from step to step besides weights and optimizer state."""

    model_config = ConfigDict(extra="forbid")

    step: int = 0
    world_size: int
    zero_stage: int
    num_averaged: int = 0
    best_step: int | None = None
    best_metrics: dict[str, float] = {}
    history: list[dict[str, float]] = []
    resumed_at: list[int] = []
    train_time_s: float = 0.0


def checkpoint_name(step: int) -> str:
    """Folder of the checkpoint after ``step`` optimizer steps."""
    return f"{_PREFIX}{step:08d}"


def write_manifest(folder: Path) -> None:
    """List all ranks' files of a checkpoint in rank 0's folder; all ranks call it together."""
    own = {
        path.relative_to(folder).as_posix(): {
            "sha256": provenance.file_hash(str(path)),
            "size": path.stat().st_size,
        }
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    gathered: list[dict[str, Any] | None] = [None] * dist.get_world_size()
    dist.all_gather_object(gathered, own)
    if dist.get_rank() == 0:
        files: dict[str, Any] = {}
        for part in gathered:
            files |= part or {}
        storage.write_bytes(folder / MANIFEST, json.dumps({"files": files}, indent=1).encode())


def read_manifest(uri: str) -> dict[str, dict[str, Any]] | None:
    """Files of a checkpoint by relative path; None if the manifest is missing or damaged."""
    try:
        content = json.loads(storage.read_bytes(storage.join_uri(uri, MANIFEST)))
        return {str(name): dict(entry) for name, entry in content["files"].items()}
    except (InputError, ValueError, KeyError, TypeError, AttributeError):
        return None


def is_whole(uri: str) -> bool:
    """Whether all files of a checkpoint are there with the listed bytes."""
    files = read_manifest(uri)
    if not files or STATE not in files:
        return False
    for name, entry in files.items():
        file = storage.join_uri(uri, name)
        if not storage.exists(file) or storage.file_size(file) != entry["size"]:
            return False
        if provenance.file_hash(file) != entry["sha256"]:
            return False
    return True


def list_checkpoints(run_uri: str) -> list[str]:
    """URIs of the checkpoints of all attempts of a run, newest step first, whole or not."""
    if not storage.exists(run_uri):
        return []
    root = storage.absolute_uri(run_uri)
    found = set()
    for uri in storage.list_files(root):
        parts = uri[len(root) :].lstrip("/").split("/")
        for depth, part in enumerate(parts[:-1]):
            if part.startswith(_PREFIX):
                found.add((part, *parts[:depth]))
                break
    return [storage.join_uri(root, *above, name) for name, *above in sorted(found, reverse=True)]


@dataclass(frozen=True, slots=True)
class Attempt:
    """One start of a run.

    Attributes:
        uri: Folder that only this start writes to.
        resume_uri: Whole checkpoint to go on from, inside ``uri``; None for a fresh start.
    """

    uri: str
    resume_uri: str | None


def start_attempt(run_uri: str) -> Attempt:
    """Open a new folder for a run, with a copy of the newest whole checkpoint of earlier starts.

    When a driver is killed, Ray processes of its start may write and delete checkpoints for some
    more seconds. Nothing they do reaches the new folder, and the copy is checked after it was made.
    Earlier folders are deleted once the copy is whole.
    """
    run_uri = storage.absolute_uri(run_uri)
    earlier = _attempts(run_uri)
    number = 1 + max((int(name.removeprefix(_ATTEMPT)) for name in earlier), default=0)
    attempt_uri = storage.join_uri(run_uri, f"{_ATTEMPT}{number:04d}")
    resume_uri = None
    for uri in list_checkpoints(run_uri):
        copy = storage.join_uri(attempt_uri, _RESUME, uri.rpartition("/")[2])
        if _copied_whole(uri, copy):
            resume_uri = copy
            break
        logger.warning("checkpoint %s is not whole and is left out", uri)
    for name in earlier:
        _delete_quietly(storage.join_uri(run_uri, name))
    return Attempt(attempt_uri, resume_uri)


def _attempts(run_uri: str) -> list[str]:
    if not storage.exists(run_uri):
        return []
    first = {uri[len(run_uri) :].lstrip("/").split("/")[0] for uri in storage.list_files(run_uri)}
    return [name for name in first if name.removeprefix(_ATTEMPT).isdigit()]


def _copied_whole(uri: str, copy: str) -> bool:
    """Copy a checkpoint; False, and no copy, unless every listed byte has arrived."""
    try:
        with tempfile.TemporaryDirectory() as scratch:
            storage.upload_folder(storage.download_folder(uri, scratch), copy)
        whole = is_whole(copy)
    except (InputError, OSError):
        whole = False
    if not whole:
        storage.delete(copy)
    return whole


def _delete_quietly(uri: str) -> None:
    """Delete a folder in which others may still create files; what stays goes at the next start."""
    try:
        storage.delete(uri)
    except OSError as error:
        logger.warning("%s could not be deleted: %s", uri, error)


def read_state(folder: Path) -> TrainerState:
    """Read the trainer state of a local checkpoint folder.

    Raises:
        InputError: If it is missing or of another version.
    """
    try:
        return TrainerState.model_validate_json((folder / STATE).read_bytes())
    except (OSError, ValidationError) as error:
        fix = "delete the checkpoints folder to start again"
        raise InputError("checkpoint", folder, f"is not readable ({error})", fix) from error


def write_state(folder: Path, state: TrainerState) -> None:
    """Write the trainer state into a local checkpoint folder."""
    storage.write_bytes(folder / STATE, state.model_dump_json(indent=1).encode())


def scratch_folder() -> Path:
    """A new temporary folder, which outlives the call; Ray Train deletes it after the upload."""
    return Path(tempfile.mkdtemp(prefix="i2l-checkpoint-"))


def remove_folder(folder: Path) -> None:
    """Delete a scratch folder."""
    shutil.rmtree(folder, ignore_errors=True)
