"""Whole checkpoints: every file is listed with its hash, and only complete ones are resumed.

DeepSpeed's own files are pickles. They are read only from the run's storage and only after their
hashes were checked.
"""

import json
import logging
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch.distributed as dist
from pydantic import BaseModel, ConfigDict, ValidationError

from i2l_model.errors import InputError
from jobs import provenance, storage

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
STATE = "trainer_state.json"
SNAPSHOT = "checkpoint_manager_snapshot.json"  # Ray Train's list of checkpoints
DEEPSPEED_FOLDER = "deepspeed"
DEEPSPEED_TAG = "state"
_PREFIX = "step-"


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


def list_checkpoints(experiment_uri: str) -> list[str]:
    """URIs of all checkpoint folders of a run, newest first, whole or not."""
    if not storage.exists(experiment_uri):
        return []
    root = storage.absolute_uri(experiment_uri)
    names = {uri[len(root) :].lstrip("/").split("/")[0] for uri in storage.list_files(root)}
    found = sorted((name for name in names if name.startswith(_PREFIX)), reverse=True)
    return [storage.join_uri(root, name) for name in found]


def newest_whole(experiment_uri: str) -> str | None:
    """URI of the newest whole checkpoint; damaged newer ones are named in a warning."""
    for uri in list_checkpoints(experiment_uri):
        if is_whole(uri):
            return uri
        logger.warning("checkpoint %s is not whole and is left out", uri)
    return None


def prepare_storage(experiment_uri: str) -> str | None:
    """Clean up after an interrupted run and return the checkpoint to resume from, if any.

    A crash can leave half a checkpoint, or damage Ray Train's snapshot, which then keeps a run
    from starting at all. Half checkpoints are deleted. A snapshot that does not end with the
    newest whole checkpoint is deleted too: the worker then loads that checkpoint itself.
    """
    newest = newest_whole(experiment_uri)
    if not storage.exists(experiment_uri):
        return None
    if not _snapshot_ends_with(experiment_uri, newest):
        storage.delete(storage.join_uri(experiment_uri, SNAPSHOT))
        for uri in list_checkpoints(experiment_uri):
            if uri != newest:
                storage.delete(uri)
    return newest


def _snapshot_ends_with(experiment_uri: str, newest: str | None) -> bool:
    """Whether Ray's snapshot is readable, ends with ``newest`` and names only existing folders."""
    try:
        content = json.loads(storage.read_bytes(storage.join_uri(experiment_uri, SNAPSHOT)))
        latest = content["latest_checkpoint_result"]["checkpoint_dir_name"]
        names = [result["checkpoint_dir_name"] for result in content["checkpoint_results"]]
    except (InputError, ValueError, KeyError, TypeError):
        return False
    if newest is None or newest.rpartition("/")[2] != latest:
        return False
    existing = {uri.rpartition("/")[2] for uri in list_checkpoints(experiment_uri)}
    return set(names) <= existing


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
