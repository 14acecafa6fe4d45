"""Reading and writing safetensors files, with the same bytes for the same content."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from i2l_model.atomic import open_atomic
from i2l_model.errors import InputError

_LENGTH_BYTES = 8  # a safetensors file starts with the header's length, little endian


def write_weights(
    tensors: Mapping[str, torch.Tensor], path: Path, metadata: Mapping[str, str] | None = None
) -> None:
    """Write tensors and string metadata as safetensors; the file appears whole or not at all.

    Equal content gives equal bytes: safetensors itself shuffles the metadata, so that the header is
    written again in sorted order.
    """
    owned = {name: tensors[name].detach().cpu().contiguous().clone() for name in sorted(tensors)}
    write_bytes(_with_sorted_metadata(save(owned, metadata=dict(metadata or {}) or None)), path)


def read_weights(
    path: Path, *, field: str, device: str | torch.device = "cpu"
) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Return the tensors and the metadata of a safetensors file.

    Args:
        path: The file.
        field: What the file is to the user, for the message.
        device: Where the tensors go.

    Raises:
        InputError: If the file is missing, damaged or not safetensors.
    """
    if not path.is_file():
        raise InputError(field, path, "does not exist", "give the path of a safetensors file")
    try:
        with safe_open(str(path), framework="pt", device=str(device)) as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return tensors, dict(file.metadata() or {})
    except SafetensorError as error:
        problem = f"is no readable safetensors file ({error})"
        raise InputError(field, path, problem, "write or download it again") from error


def check_loaded(
    report: Mapping[str, Any], kinds: Sequence[str], field: str, value: object, fix: str
) -> None:
    """Raise InputError if transformers, which makes up missing weights, reports such keys.

    Args:
        report: Its loading report.
        kinds: "missing_keys", "unexpected_keys".
        field: What was loaded is to the user, for the message.
        value: Where it was loaded from, for the message.
        fix: What to do about it, for the message.
    """
    for kind in kinds:
        keys = sorted(map(str, report[kind]))
        if keys:
            problem = f"has {len(keys)} {kind.replace('_', ' ')}, {keys[0]} the first"
            raise InputError(field, value, problem, fix)


def write_bytes(data: bytes, path: Path) -> None:
    """Write a file under a temporary name in its folder, then rename it into place.

    Raises:
        InputError: If the folder cannot be made or written.
    """
    with open_atomic(path) as file:
        file.write(data)


def _with_sorted_metadata(data: bytes) -> bytes:
    length = int.from_bytes(data[:_LENGTH_BYTES], "little")
    header = json.loads(data[_LENGTH_BYTES : _LENGTH_BYTES + length])
    if "__metadata__" not in header:
        return data
    header = {"__metadata__": dict(sorted(header.pop("__metadata__").items())), **header}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _LENGTH_BYTES)
    return len(text).to_bytes(_LENGTH_BYTES, "little") + text + data[_LENGTH_BYTES + length :]
