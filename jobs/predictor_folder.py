"""A predictor folder: config.json, model.safetensors and, from a training, provenance.json."""

import json
from typing import Any

from i2l_model.errors import InputError
from jobs import storage
from jobs.provenance import file_hash

_FIX = "copy the whole folder again, or train again"


def check_predictor(folder_uri: str, name: str) -> None:
    """Refuse a folder that is incomplete, or whose weights its provenance does not know.

    A folder without provenance.json, or whose provenance names no weights, is taken as it is.

    Args:
        folder_uri: The folder.
        name: What the user called it.

    Raises:
        InputError: If a file is missing or damaged, or files of two predictors are mixed.
    """
    for file in ("config.json", "model.safetensors"):
        if not storage.exists(storage.join_uri(folder_uri, file)):
            fix = "name the predictor folder of i2l train"
            raise InputError("predictor", name, f"has no {file}", fix)
    expected = (read_provenance(folder_uri, name) or {}).get("predictor_sha256")
    weights = storage.join_uri(folder_uri, "model.safetensors")
    if expected is not None and file_hash(weights) != expected:
        problem = "has other weights in model.safetensors than its provenance.json names"
        raise InputError("predictor", name, problem, _FIX)


def read_provenance(
    folder_uri: str, name: str, *, field: str = "predictor"
) -> dict[str, Any] | None:
    """What provenance.json says; None where there is none.

    Raises:
        InputError: If it is damaged.
    """
    if not storage.exists(storage.join_uri(folder_uri, "provenance.json")):
        return None
    return read_record(folder_uri, "provenance.json", name, field=field)


def read_record(
    folder_uri: str, file: str, name: str, *, field: str = "predictor"
) -> dict[str, Any]:
    """The JSON object in a file of a predictor folder.

    Args:
        folder_uri: The folder.
        file: config.json or provenance.json.
        name: What the user called the folder.
        field: What the user named it for.

    Raises:
        InputError: If the file is missing or holds no JSON object.
    """
    content = storage.read_bytes(storage.join_uri(folder_uri, file))
    try:
        record = json.loads(content)
    except ValueError as error:
        raise InputError(field, name, f"has a damaged {file} ({error})", _FIX) from error
    if not isinstance(record, dict):
        raise InputError(field, name, f"has a damaged {file} (no JSON object)", _FIX)
    return record
