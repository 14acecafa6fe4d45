"""Folders of pretrained models: found locally or on the hub, read as safetensors and JSON only."""

import re
from pathlib import Path
from typing import Any

from i2l_model.errors import InputError
from jobs.provenance import file_hash, json_hash

_HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w.-]+)?")
_FILES = ("*.safetensors", "*.json", "merges.txt", "vocab.txt", "*.model")
_HASHED = ("*.safetensors", "config.json", "*processor_config.json", "tokenizer.json", "vocab.json")


def checkpoint_folder(field: str, path_or_id: str | None) -> Path:
    """The local folder of a model; from the hub, it is fetched unless ``HF_HUB_OFFLINE`` is set.

    Args:
        field: The setting, for the error message.
        path_or_id: A folder, or a hub id like ``facebook/dinov2-base``.

    Raises:
        InputError: If nothing is there or it holds no safetensors.
    """
    if not path_or_id:
        raise InputError(field, path_or_id, "is needed", "give a model folder or a hub id")
    folder = Path(path_or_id).expanduser()
    if not folder.is_dir():
        folder = _from_hub(field, path_or_id)
    if not any(folder.glob("*.safetensors")):
        problem = "holds no .safetensors weights, and pickled ones are not read"
        raise InputError(field, path_or_id, problem, "convert them, see docs/encoders.md")
    return folder


def _from_hub(field: str, path_or_id: str) -> Path:
    fix = "give an existing model folder, or a hub id that is cached or can be downloaded"
    if Path(path_or_id).exists() or not _HUB_ID.fullmatch(path_or_id):
        raise InputError(field, path_or_id, "is no folder and no hub id", fix)
    from huggingface_hub import snapshot_download  # here: it is slow to import

    try:
        return Path(snapshot_download(path_or_id, allow_patterns=list(_FILES)))
    except Exception as error:  # offline, unknown, gated, no connection: each an own type
        problem = f"is no folder and does not load from the hub ({type(error).__name__})"
        raise InputError(field, path_or_id, problem, fix) from error


def checkpoint_hash(folder: Path) -> str:
    """Hash of weights, configuration and tokenizer: another checkpoint embeds again."""
    names = sorted({path for pattern in _HASHED for path in folder.glob(pattern)})
    return json_hash([[path.name, file_hash(str(path))] for path in names])


def load_pretrained(kind: Any, field: str, folder: Path, dtype: str) -> Any:
    """``kind.from_pretrained``, from safetensors, without remote code, every weight required.

    Raises:
        InputError: If the folder holds another kind of model or lacks weights.
    """
    import torch

    try:
        model, info = kind.from_pretrained(
            folder,
            dtype=getattr(torch, dtype),
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
        )
    except Exception as error:  # whatever a foreign config provokes
        reason = " ".join(str(error).split())[:120]
        problem = f"does not load as {kind.__name__} ({type(error).__name__}: {reason})"
        raise InputError(field, folder, problem, "give a folder of that model") from error
    missing = sorted({*info["missing_keys"], *(str(key) for key in info["mismatched_keys"])})
    if missing:
        problem = f"lacks {len(missing)} weights of {kind.__name__}, {missing[0]} among them"
        raise InputError(field, folder, problem, "give a folder of that model")
    return model.eval().requires_grad_(False)
