"""Where an artefact comes from: source revision, configuration, data and library versions."""

import hashlib
import json
import platform
import subprocess
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from i2l_model.errors import InputError
from jobs import storage

_PACKAGES = (
    "boto3", "deepspeed", "diffusers", "faiss-cpu", "mlflow", "numpy", "peft", "pillow",
    "pyarrow", "pydantic", "ray", "safetensors", "torch", "transformers",
)  # fmt: skip
_CHUNK_BYTES = 1 << 20
UNKNOWN = "unknown"

# How work is spread, kept and shown: the result of a job does not depend on it.
_EXECUTION_SETTINGS = {
    "backbone_shards",
    "cache",
    "cache_uri",
    "checkpoint_every",
    "collective_timeout_s",
    "cpus_per_loader",
    "cpus_per_worker",
    "encode_batch_size",
    "gpus_per_worker",
    "gradient_accumulation_steps",
    "gradient_checkpointing",
    "keep_last",
    "loaders_per_worker",
    "log_every",
    "max_failures",
    "memory_gib",
    "min_workers",
    "num_workers",
    "offload_optimizer",
    "prefetch",
    "profile",
    "storage_patience_s",
    "threads_per_worker",
    "workers",
    "zero_stage",
}


def git_sha() -> str:
    """Commit of the running source with "-dirty" if files differ; "unknown" outside a checkout."""
    root = Path(__file__).resolve().parent.parent
    try:
        commit = _git(root, "rev-parse", "HEAD")
        changed = _git(root, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return UNKNOWN
    return f"{commit}-dirty" if changed else commit


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=20)
    return done.stdout.strip()


def json_hash(value: Any) -> str:
    """sha256 of a JSON-ready value, independent of the order of keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def without_execution(settings: Any) -> Any:
    """JSON-ready settings without those that only say how the work is spread."""
    if not isinstance(settings, dict):
        return settings
    return {
        name: without_execution(value)
        for name, value in settings.items()
        if name not in _EXECUTION_SETTINGS
    }


def config_hash(model: BaseModel) -> str:
    """sha256 of a configuration; equal settings give equal hashes."""
    return json_hash(model.model_dump(mode="json"))


def bytes_hash(data: bytes) -> str:
    """sha256 of ``data`` as hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def predictor_hash(uri: str) -> str:
    """Hash of what a predictor folder predicts with: config.json and model.safetensors."""
    files = ("config.json", "model.safetensors")
    return json_hash([file_hash(storage.join_uri(uri, name)) for name in files])


def file_hash(uri: str) -> str:
    """sha256 of a file's bytes, streamed.

    Raises:
        InputError: If there is no such file.
    """
    digest = hashlib.sha256()
    with storage.open_read(uri) as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def manifest_hash(entries: Iterable[Mapping[str, Any]]) -> str:
    """One hash over a list of files, each with at least "sha256" and "size".

    Places do not count, so that a copied data set keeps its hash; order does not count either.
    """
    return json_hash(sorted([entry["sha256"], entry["size"]] for entry in entries))


def pairs_hash(pairs_uri: str) -> str:
    """Hash of the mined pairs: the manifest's content hash, else of the shards' names and sizes.

    Raises:
        InputError: If the manifest is no JSON, or there are neither manifest nor shards.
    """
    uri = storage.join_uri(pairs_uri, "manifest.json")
    if storage.exists(uri):
        try:
            content = json.loads(storage.read_bytes(uri))
        except ValueError as error:
            raise InputError("pairs", uri, "is no JSON", "mine the pairs again") from error
        return str(content.get("content_hash") or json_hash(content))
    root = storage.join_uri(pairs_uri, "shards")
    if not storage.exists(root):
        raise InputError("pairs", pairs_uri, "holds no shards", "give the output of i2l mine")
    files = storage.list_files(root, ".tar")
    return json_hash([[uri[len(root) :], storage.file_size(uri)] for uri in files])


def environment_versions() -> dict[str, str]:
    """Versions of Python and of the libraries that shape results; absent ones are left out."""
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions
