"""Loading a backbone by name, folder or hub id."""

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline, ZImagePipeline

from i2l_model.assets import asset_path, available_assets
from i2l_model.backbones.base import Backbone
from i2l_model.backbones.zimage import ZImageBackbone
from i2l_model.errors import InputError

_FIELD = "backbone"
_INDEX = "model_index.json"
_ADAPTERS = {"ZImagePipeline": (ZImagePipeline, ZImageBackbone)}


def load_backbone(
    path_or_id: str | Path,
    *,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
) -> Backbone:
    """Load a frozen backbone from safetensors; no code of the model folder is run.

    Args:
        path_or_id: A shipped model's name ("tiny-zimage"), a diffusers folder, or a hub id.
        dtype: Dtype of all weights.
        device: Where they go.

    Raises:
        InputError: If nothing is found there, or the pipeline is of an unsupported class.
    """
    source, name = _resolve(path_or_id)
    class_name = _pipeline_class(source, path_or_id)
    if class_name not in _ADAPTERS:
        known = ", ".join(_ADAPTERS)
        raise InputError(_FIELD, path_or_id, f"is a {class_name}", f"use one of: {known}")
    pipeline_class, adapter = _ADAPTERS[class_name]
    try:
        pipeline = pipeline_class.from_pretrained(source, dtype=dtype, use_safetensors=True)
    except (OSError, ValueError) as error:
        raise InputError(
            _FIELD, path_or_id, f"does not load ({error})", "check that the folder is complete"
        ) from error
    return adapter(pipeline.to(device), name)


def _resolve(path_or_id: str | Path) -> tuple[str, str]:
    """Return what diffusers loads from, and the backbone's name, which holds no machine path."""
    text = str(path_or_id)
    if text in available_assets():
        return str(asset_path(text)), text
    path = Path(path_or_id).expanduser()
    if path.is_dir():
        if not (path / _INDEX).is_file():
            raise InputError(_FIELD, path_or_id, f"has no {_INDEX}", "give a diffusers folder")
        return str(path), path.resolve().name
    if isinstance(path_or_id, Path) or text.count("/") != 1 or text.startswith((".", "/", "~")):
        raise InputError(
            _FIELD, path_or_id, "does not exist", "give a diffusers folder, a hub id or tiny-zimage"
        )
    return text, text


def _pipeline_class(source: str, path_or_id: str | Path) -> str:
    try:
        if Path(source).is_dir():
            config: Any = json.loads((Path(source) / _INDEX).read_text(encoding="utf-8"))
        else:
            config = DiffusionPipeline.load_config(source)
        return str(config["_class_name"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        problem = f"has no readable {_INDEX}"
        if not Path(source).is_dir():
            problem = f"is no folder here and {problem} on the hub"
        raise InputError(
            _FIELD, path_or_id, problem, "check the name and the connection"
        ) from error
