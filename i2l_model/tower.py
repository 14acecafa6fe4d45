"""What all vision towers share: freezing, checks of their input, a hash of their weights."""

# B images, H W pixels, T tokens, D features

import contextlib
import hashlib
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from torch import nn

from i2l_model.assets import asset_path, available_assets
from i2l_model.errors import InputError
from i2l_model.tower_config import Dinov3Config, EncoderConfig
from i2l_model.weights import check_loaded

_Config = TypeVar("_Config", EncoderConfig, Dinov3Config)


class VisionTower(nn.Module):
    """A pretrained or new vision transformer; frozen, it stays in eval mode without gradients.

    Args:
        vision: The transformers model.
        trainable: Train it with the predictor.
        pooled: Whether it returns one token an image, its summary, instead of one a patch.
    """

    def __init__(self, vision: Any, *, trainable: bool, pooled: bool) -> None:
        super().__init__()
        self.vision = vision
        self.trainable = trainable
        self.pooled = pooled
        if not trainable:
            self.requires_grad_(False)
            self.eval()

    @property
    def hidden_size(self) -> int:
        """Features D of a token."""
        return int(self.vision.config.hidden_size)

    def gradients(self) -> AbstractContextManager[Any]:
        """Return the context to run the tower in."""
        return contextlib.nullcontext() if self.trainable else torch.no_grad()

    def train(self, mode: bool = True) -> "VisionTower":
        """Set the training mode; a frozen tower stays in eval mode."""
        return super().train(mode and self.trainable)

    def fingerprint(self) -> str:
        """Return a hash of the weights, the same for float32 and bfloat16 copies of them."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.state_dict().items()):
            digest.update(f"{name} {tuple(tensor.shape)}\n".encode())
            data = tensor.detach().to("cpu", torch.bfloat16).contiguous()
            digest.update(data.view(torch.int16).numpy().tobytes())
        return digest.hexdigest()

    @staticmethod
    def check_images(images: torch.Tensor, size: int) -> None:
        """Raise InputError unless the images are (B, 3, size, size)."""
        if images.ndim != 4 or images.shape[1:] != (3, size, size):
            shape = tuple(images.shape)
            raise InputError(
                "images", shape, f"must be (B, 3, {size}, {size})", "resize them first"
            )


def load_tower(model_class: Any, path_or_id: str, field: str, kind: str) -> Any:
    """Load a tower in float32 from safetensors.

    Args:
        model_class: Its transformers class.
        path_or_id: Asset name, folder or hub id.
        field: Field of the predictor's config, for the message.
        kind: Name of the family, for the message.

    Raises:
        InputError: If there is no such tower, or weights of it are missing or of other shapes.
    """
    source = _source(path_or_id)
    try:
        vision, report = model_class.from_pretrained(
            source, dtype=torch.float32, use_safetensors=True, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        known = "an asset name, a folder or a hub id"
        problem = f"is no loadable {kind} vision tower"
        if not Path(source).exists():
            problem = "does not exist here and does not load from the hub"
        raise InputError(f"{field}.path_or_id", path_or_id, problem, f"give {known}") from error
    fix = f"give a whole {kind} vision tower"
    check_loaded(report, ("missing_keys",), f"{field}.path_or_id", path_or_id, fix)
    return vision


def load_tower_config(config_class: Any, path_or_id: str, field: str, kind: str) -> Any:
    """Load the configuration of a tower, without its weights.

    Args:
        config_class: Its transformers class.
        path_or_id: Asset name, folder or hub id.
        field: Field of the predictor's config, for the message.
        kind: Name of the family, for the message.

    Raises:
        InputError: If there is no such configuration.
    """
    try:
        return config_class.from_pretrained(_source(path_or_id))
    except (OSError, ValueError) as error:
        problem = f"has no readable config of a {kind} vision tower"
        raise InputError(f"{field}.path_or_id", path_or_id, problem, "check the name") from error


def given_by_sizes(
    config: _Config, released: Mapping[str, _Config], read: Callable[[str], _Config]
) -> _Config:
    """Return the same tower given by its sizes instead of its source.

    Args:
        config: The tower's settings; returned as they are where they have no source.
        released: Sizes of the released towers by hub id, of which nothing is read.
        read: Reads the sizes of any other source.
    """
    if config.path_or_id is None:
        return config
    sizes = released.get(config.path_or_id) or read(config.path_or_id)
    return sizes.model_copy(update={"trainable": config.trainable})


def _source(path_or_id: str) -> str:
    """What transformers loads from."""
    return str(asset_path(path_or_id)) if path_or_id in available_assets() else path_or_id
