"""What the driver hands to every training worker, and the marks a training leaves."""

import hashlib
import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from i2l_model.assets import asset_path, available_assets
from jobs import provenance, storage
from jobs.registry.tracking import TrackingConfig
from jobs.training.config import TrainingConfig
from jobs.training.inputs import TrainingInputs

HISTORY_FILE = "training.json"
PREDICTOR_FOLDER = "predictor"
CHECKPOINTS_FOLDER = "checkpoints"
_FULL_HASH_BYTES = 1 << 30  # larger backbone folders are told apart by file names and sizes


class TrainingJob(BaseModel):
    """One training, as the workers see it; all URIs are absolute."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    config: TrainingConfig
    inputs: TrainingInputs
    output_uri: str
    tracking: TrackingConfig
    device: str = Field(description="cpu or cuda.")
    init_uri: str | None = Field(description="Folder of the predictor to start from.")
    attempt_uri: str = Field(
        description="Where this start keeps its checkpoints, and a copy of the one to go on from."
    )
    origin: dict[str, Any] = Field(description="Provenance stored with the predictor.")

    @property
    def key(self) -> str:
        """Hash of everything that shapes the result."""
        return str(self.origin["key"])

    @property
    def run_id(self) -> str:
        """The MLflow run."""
        return str(self.origin["run_id"])

    @property
    def predictor_uri(self) -> str:
        """Where the finished predictor goes."""
        return storage.join_uri(self.output_uri, PREDICTOR_FOLDER)


def model_fingerprint(path_or_id: str) -> str:
    """Hash that changes with the files of a shipped or local model; of a hub id, the id."""
    shipped = path_or_id in available_assets()
    folder = asset_path(path_or_id) if shipped else Path(path_or_id).expanduser()
    if not folder.is_dir():
        return path_or_id
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    sizes = {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}
    digest = hashlib.sha256(json.dumps(sizes, sort_keys=True).encode())
    if sum(sizes.values()) <= _FULL_HASH_BYTES:
        for path in files:
            digest.update(provenance.file_hash(str(path)).encode())
    return digest.hexdigest()


def backbone_name(backbone: str) -> str:
    """The name that predictors of this backbone carry, without loading it."""
    if backbone in available_assets():
        return backbone
    folder = Path(backbone).expanduser()
    return folder.resolve().name if folder.is_dir() else backbone
