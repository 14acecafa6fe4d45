"""Loading a backbone by name, folder or hub id."""

import json
import logging
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from diffusers import Flux2KleinPipeline, Flux2Pipeline, ZImagePipeline
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError
from safetensors import SafetensorError
from transformers import AutoTokenizer

from i2l_model.assets import asset_path, available_assets
from i2l_model.backbones.base import Backbone
from i2l_model.backbones.flux2 import Flux2Backbone
from i2l_model.backbones.hidream_o1 import (
    HIDREAM_IMAGE_SIZE,
    HiDreamO1Backbone,
    HiDreamO1ForImageGeneration,
)
from i2l_model.backbones.zimage import ZImageBackbone
from i2l_model.errors import InputError
from i2l_model.weights import check_loaded

logger = logging.getLogger(__name__)

_FIELD = "backbone"
_INCOMPLETE = "check that the folder is complete"
_KINDS = {"model_index.json": "_class_name", "config.json": "model_type"}
_HIDREAM = "qwen3_vl"  # what config.json calls it


def load_backbone(
    path_or_id: str | Path,
    *,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
) -> Backbone:
    """Load a frozen backbone from safetensors; no code of the model folder is run.

    Args:
        path_or_id: A shipped model's name ("tiny-zimage"), a folder, or a hub id: of Z-Image or
            FLUX.2 in diffusers' layout, or of HiDream-O1 as it is released.
        dtype: Dtype of all weights.
        device: Where they go.

    Raises:
        InputError: If nothing is found there, it is of an unsupported class, or does not load.
    """
    source, name, kind = identify(path_or_id)
    try:
        return _LOADERS[kind](source, name, dtype, torch.device(device))
    except InputError:
        raise
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise InputError(_FIELD, path_or_id, f"does not load ({error})", _INCOMPLETE) from error


def backbone_class(path_or_id: str | Path) -> type[Backbone]:
    """The adapter of a backbone, told by its configuration alone.

    Raises:
        InputError: If nothing is found there, or it is of an unsupported class.
    """
    return _CLASSES[identify(path_or_id)[2]]


def identify(path_or_id: str | Path) -> tuple[str, str, str]:
    """Return what is loaded from, the backbone's name, which holds no machine path, and its class.

    Raises:
        InputError: If nothing is found there, or it is of an unsupported class.
    """
    source, name = _resolve(path_or_id)
    kind = _model_class(source, path_or_id)
    if kind not in _CLASSES:
        raise InputError(_FIELD, path_or_id, f"is a {kind}", f"use one of: {', '.join(_CLASSES)}")
    return source, name, kind


Loader = Callable[[str, str, torch.dtype, torch.device], Backbone]


def _pipeline_loader(pipeline_class: Any, adapter: Any) -> Loader:
    def load(source: str, name: str, dtype: torch.dtype, device: torch.device) -> Backbone:
        # Of a text encoder, transformers makes up missing weights; diffusers refuses them.
        _, class_name = pipeline_class.load_config(source)["text_encoder"]
        text_encoder, report = getattr(transformers, class_name).from_pretrained(
            source,
            subfolder="text_encoder",
            dtype=dtype,
            use_safetensors=True,
            output_loading_info=True,
        )
        check_loaded(report, ("missing_keys",), _FIELD, name, _INCOMPLETE)
        pipeline = pipeline_class.from_pretrained(
            source, text_encoder=text_encoder, dtype=dtype, use_safetensors=True
        )
        backbone: Backbone = adapter(pipeline.to(device), name)
        return backbone

    return load


def _load_hidream(source: str, name: str, dtype: torch.dtype, device: torch.device) -> Backbone:
    checkpoint, report = HiDreamO1ForImageGeneration.from_pretrained(
        source, dtype=dtype, use_safetensors=True, output_loading_info=True
    )
    check_loaded(report, ("missing_keys", "unexpected_keys"), _FIELD, name, _INCOMPLETE)
    checkpoint.model.visual = None  # reads pictures, which drawing from text has none of
    return HiDreamO1Backbone(
        checkpoint.model.to(device),
        AutoTokenizer.from_pretrained(source, trust_remote_code=False),
        name,
        dev=_is_dev(source, name),
        image_size=getattr(checkpoint.config, "image_size", HIDREAM_IMAGE_SIZE),
    )


def _is_dev(source: str, name: str) -> bool:
    """Whether a HiDream-O1 checkpoint is the distilled one, which only its name tells.

    The folder's name, or in a hub cache, where that is a hash, the repository's.
    """
    parts = [name, *Path(source).absolute().parts[-3:]] if Path(source).is_dir() else [name]
    repository = next((part for part in parts if part.startswith("models--")), name)
    dev = "dev" in re.split(r"[^a-z0-9]+", repository.lower().split("/")[-1])
    logger.info("%s is taken for HiDream-O1-Image%s", name, "-Dev" if dev else "")
    return dev


PIPELINES: Mapping[str, tuple[Any, type[Backbone]]] = {
    "ZImagePipeline": (ZImagePipeline, ZImageBackbone),
    "Flux2KleinPipeline": (Flux2KleinPipeline, Flux2Backbone),
    "Flux2Pipeline": (Flux2Pipeline, Flux2Backbone),
}
"""diffusers' pipelines by name, each with the adapter over it."""
_CLASSES: Mapping[str, type[Backbone]] = {
    **{kind: adapter for kind, (_, adapter) in PIPELINES.items()},
    _HIDREAM: HiDreamO1Backbone,
}
_LOADERS: Mapping[str, Loader] = {
    **{kind: _pipeline_loader(*classes) for kind, classes in PIPELINES.items()},
    _HIDREAM: _load_hidream,
}


def _resolve(path_or_id: str | Path) -> tuple[str, str]:
    """Return what is loaded from, and the backbone's name, which holds no machine path."""
    text = str(path_or_id)
    if text in available_assets():
        return str(asset_path(text)), text
    path = Path(path_or_id).expanduser()
    if path.is_dir():
        return str(path), path.absolute().name
    if isinstance(path_or_id, Path) or text.count("/") != 1 or text.startswith((".", "/", "~")):
        raise InputError(
            _FIELD, path_or_id, "does not exist", "give a model folder, a hub id or tiny-zimage"
        )
    return text, text


def _model_class(source: str, path_or_id: str | Path) -> str:
    """Return the pipeline's class, or the model's type where there is no pipeline."""
    folder = Path(source)
    try:
        if not folder.is_dir():
            return _class_on_hub(source)
        for file, field in _KINDS.items():
            if (folder / file).is_file():
                return str(json.loads((folder / file).read_text(encoding="utf-8"))[field])
    except (OSError, ValueError, KeyError, TypeError, HfHubHTTPError) as error:
        problem, fix = f"has no readable {' or '.join(_KINDS)}", "check the folder"
        if not folder.is_dir():
            problem = "is no folder here and no model on the hub"
            fix = "check the name and the connection"
        raise InputError(_FIELD, path_or_id, problem, fix) from error
    problem = f"has no {' or '.join(_KINDS)}"
    raise InputError(_FIELD, path_or_id, problem, "give the folder of a whole model")


def _class_on_hub(repo_id: str) -> str:
    index, config = _KINDS
    try:
        file, path = index, hf_hub_download(repo_id, index)
    except EntryNotFoundError:
        file, path = config, hf_hub_download(repo_id, config)
    content: Any = json.loads(Path(path).read_text(encoding="utf-8"))
    return str(content[_KINDS[file]])
