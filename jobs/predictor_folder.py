"""A predictor folder: config.json, model.safetensors and, from a training, provenance.json."""

import json

from i2l_model.errors import InputError
from jobs import storage
from jobs.provenance import file_hash


def check_predictor(folder_uri: str, name: str) -> None:
    """Refuse a folder that is incomplete, or whose weights its provenance does not know.

    A folder without provenance.json, or whose provenance names no weights, is taken as it is.

    Args:
        folder_uri: The folder.
        name: What the user called it.

    Raises:
        InputError: If a file is missing, or files of two predictors are mixed.
    """
    config, weights, origin = (
        storage.join_uri(folder_uri, file)
        for file in ("config.json", "model.safetensors", "provenance.json")
    )
    for uri in (config, weights):
        if not storage.exists(uri):
            problem = f"has no {uri.rpartition('/')[2]}"
            raise InputError("predictor", name, problem, "name the predictor folder of i2l train")
    if not storage.exists(origin):
        return
    expected = json.loads(storage.read_bytes(origin)).get("predictor_sha256")
    if expected is not None and file_hash(weights) != expected:
        problem = "has other weights in model.safetensors than its provenance.json names"
        raise InputError("predictor", name, problem, "copy the whole folder again, or train again")
