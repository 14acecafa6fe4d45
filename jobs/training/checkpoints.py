"""Whole checkpoints: every file is listed with its hash, and only complete ones are resumed.

Every rank writes its share of the state and a manifest of its own files, the manifest last. A
checkpoint is whole once the manifests of all its ranks are there and all hashes agree. The tensors
are safetensors by parameter name, so that any number of workers reads them.
"""

import json
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from i2l_model.errors import InputError
from jobs import provenance, storage
from jobs.away import ServerAway
from jobs.training.patience import Report, patiently

STATE = "trainer_state.json"
BEST = "best.safetensors"
_MANIFEST = re.compile(r"manifest-(\d{5})-of-(\d{5})\.json")
PREFIX = "step-"
"""Start of the names of checkpoints."""

Manifest = dict[str, dict[str, Any]]
"""Files of a checkpoint by relative path, each with sha256 and size."""


class TrainerState(BaseModel):
    """What a run carries from step to step besides weights and optimizer state."""

    model_config = ConfigDict(extra="forbid")

    step: int = 0
    world_size: int
    zero_stage: int
    num_averaged: int = 0
    num_skipped: int = 0  # steps in a row that were left out
    mean_loss: float | None = None  # running mean that spikes are told by
    complete_epochs: int = 0
    epoch_styles: list[int] = []  # those that this epoch has trained on, by number
    best_step: int | None = None
    best_metrics: dict[str, float] = {}
    history: list[dict[str, float]] = []
    resumed_at: list[int] = []
    train_time_s: float = 0.0


def checkpoint_name(step: int) -> str:
    """Folder of the checkpoint after ``step`` optimizer steps."""
    return f"{PREFIX}{step:08d}"


def share_name(rank: int, world_size: int) -> str:
    """File of one rank's share of the tensors."""
    return f"state-{rank:05d}-of-{world_size:05d}.safetensors"


def write_manifest(folder: Path, rank: int, world_size: int) -> None:
    """List a rank's files of a checkpoint, which are all that the folder holds."""
    files = {
        path.name: {"sha256": provenance.file_hash(str(path)), "size": path.stat().st_size}
        for path in sorted(folder.iterdir())
    }
    name = f"manifest-{rank:05d}-of-{world_size:05d}.json"
    storage.write_bytes(folder / name, json.dumps({"files": files}, indent=1).encode())


def upload(folder: Path, uri: str, patience_s: float, report: Report) -> None:
    """Copy a rank's files into a checkpoint, the manifest last; wait for storage that is away.

    Args:
        folder: The files.
        uri: The checkpoint.
        patience_s: How long to try again, in seconds.
        report: Told once if the storage does not answer, and once it does again.

    Raises:
        StorageError: If the storage stays away.
        OSError: Likewise, of a local folder.
    """
    names = sorted(
        (path.name for path in folder.iterdir()),
        key=lambda name: (_MANIFEST.fullmatch(name) is not None, name),
    )
    for name in names:
        target = storage.join_uri(uri, name)
        copy = partial(storage.copy_file, folder / name, target)
        patiently(copy, f"writing {target}", patience_s, report)


def whole_files(uri: str) -> Manifest | None:
    """Files of a checkpoint, if those of all its ranks are there with the listed bytes."""
    for manifest in _manifests(uri):
        if STATE in manifest and all(_is_intact(uri, *item) for item in manifest.items()):
            return manifest
    return None


def _manifests(uri: str) -> Iterator[Manifest]:
    """The complete lists of files; of several if others of another number of ranks are left."""
    found: dict[int, dict[int, str]] = {}
    try:
        names = storage.list_files(uri)
    except ServerAway:
        raise
    except InputError:
        return
    for name in names:
        if match := _MANIFEST.fullmatch(name.rpartition("/")[2]):
            found.setdefault(int(match[2]), {})[int(match[1])] = name
    for world_size, parts in found.items():
        if len(parts) != world_size:
            continue
        try:
            files: Manifest = {}
            for part in parts.values():
                content = json.loads(storage.read_bytes(part))
                files |= {str(name): dict(entry) for name, entry in content["files"].items()}
            yield files
        except ServerAway:
            raise
        except (InputError, ValueError, KeyError, TypeError, AttributeError):
            continue


def _is_intact(uri: str, name: str, entry: dict[str, Any]) -> bool:
    file = storage.join_uri(uri, name)
    return (
        storage.exists(file)
        and storage.file_size(file) == entry.get("size")
        and provenance.file_hash(file) == entry.get("sha256")
    )


@contextmanager
def local_copy(uri: str) -> Iterator[Path]:
    """Give the files of a checkpoint as a local folder, which may be the checkpoint itself."""
    if not storage.is_s3(uri):
        yield storage.local_path(uri)
        return
    with scratch_folder() as scratch:
        yield storage.download_folder(uri, scratch)


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


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Give a temporary folder for the files of a checkpoint."""
    with tempfile.TemporaryDirectory(prefix="i2l-checkpoint-") as folder:
        yield Path(folder)


def write_tensors(tensors: dict[str, torch.Tensor], path: Path) -> None:
    """Write contiguous tensors of the CPU as safetensors, without a copy of them in memory.

    Raises:
        InputError: If the disk is full or cannot be written.
    """
    try:
        save_file(tensors, path)
    except (SafetensorError, OSError) as error:
        fix = "free space there, or set TMPDIR to another disk"
        raise InputError("checkpoint", path, f"cannot be written ({error})", fix) from error


def tensor_reader(folder: Path) -> Callable[[str], torch.Tensor]:
    """Return a function that reads one tensor of a local checkpoint by its name.

    Raises:
        InputError: If a file is damaged, or the returned function finds no such tensor.
    """
    manifest = whole_files(str(folder))
    if manifest is None:
        fix = "delete it to resume from the one before"
        raise InputError("checkpoint", folder, "is damaged", fix)
    files: dict[str, Any] = {}
    for name in manifest:
        if name.startswith("state-"):
            share: Any = safe_open(str(folder / name), framework="pt")
            files |= dict.fromkeys(share.keys(), share)

    def read(name: str) -> torch.Tensor:
        if name not in files:
            fix = "start again with another output"
            raise InputError("checkpoint", folder, f"holds no '{name}'", fix)
        tensor: torch.Tensor = files[name].get_tensor(name)
        return tensor

    return read
