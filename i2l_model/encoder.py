"""The image encoder: reference images to patch tokens."""

# B images, H W pixels, T patch tokens, D features

import contextlib
import hashlib
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import nn
from transformers import SiglipVisionConfig, SiglipVisionModel

from i2l_model.assets import asset_path, available_assets
from i2l_model.errors import InputError

_TINY_SIZES = dict(image_size=64, patch_size=8, hidden_size=128, num_layers=4, num_heads=4)  # noqa: C408
_SIZES = (*_TINY_SIZES, "intermediate_size")


class EncoderConfig(BaseModel):
    """Which vision tower reads the references: pretrained, or a new one of the given sizes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path_or_id: str | None = Field(
        None,
        description="Pretrained SigLIP or fixed-resolution SigLIP2 tower: folder or hub id. None "
        "builds a new tower from the sizes below.",
    )
    image_size: int | None = Field(None, ge=1, description="Side of the input in pixels.")
    patch_size: int | None = Field(None, ge=1, description="Side of a patch in pixels.")
    hidden_size: int | None = Field(None, ge=1, description="Features of a token.")
    num_layers: int | None = Field(None, ge=1, description="Transformer layers.")
    num_heads: int | None = Field(None, ge=1, description="Attention heads.")
    intermediate_size: int | None = Field(
        None, ge=1, description="Width of the MLPs; 4 * hidden_size where not set."
    )
    trainable: bool = Field(
        False, description="Train the tower with the predictor; False freezes its weights."
    )

    @model_validator(mode="before")
    @classmethod
    def _complete_sizes(cls, values: Any) -> Any:
        if not isinstance(values, dict) or values.get("path_or_id") is not None:
            return values
        sizes = {**_TINY_SIZES, **{key: size for key, size in values.items() if size is not None}}
        if isinstance(sizes["hidden_size"], int):
            sizes.setdefault("intermediate_size", 4 * sizes["hidden_size"])
        return sizes

    @model_validator(mode="after")
    def _check_sizes(self) -> "EncoderConfig":
        sizes = {name: getattr(self, name) for name in _SIZES}
        if self.path_or_id is not None:
            given = [name for name, size in sizes.items() if size is not None]
            if given:
                raise ValueError(f"{given[0]} comes from path_or_id; leave one of the two out")
            return self
        if sizes["image_size"] % sizes["patch_size"]:
            raise ValueError("image_size must be a multiple of patch_size")
        if sizes["hidden_size"] % sizes["num_heads"]:
            raise ValueError("hidden_size must be a multiple of num_heads")
        return self


class ReferenceEncoder(nn.Module):
    """A SigLIP vision tower that returns its patch tokens after the final layer norm.

    A frozen tower stays in eval mode and runs without gradients.

    Args:
        config: Which tower.

    Raises:
        InputError: If ``path_or_id`` holds no such tower.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        if config.path_or_id is None:
            self.vision: Any = SiglipVisionModel(_vision_config(config))
        else:
            self.vision = _load_vision(config.path_or_id)
        if self.vision.use_head:  # the pooled output is not used, its weights would get no gradient
            self.vision.use_head = False
            del self.vision.head
        if not config.trainable:
            self.requires_grad_(False)
            self.eval()

    @property
    def image_size(self) -> int:
        """Side of the input images in pixels."""
        return int(self.vision.config.image_size)

    @property
    def hidden_size(self) -> int:
        """Features D of a token."""
        return int(self.vision.config.hidden_size)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the patch tokens (B, T, D) of images (B, 3, H, W) in [-1, 1], H = W = image_size.

        Raises:
            InputError: If the images have another size.
        """
        size = self.image_size
        if images.ndim != 4 or images.shape[1:] != (3, size, size):
            shape = tuple(images.shape)
            raise InputError(
                "images", shape, f"must be (B, 3, {size}, {size})", "resize them first"
            )
        with contextlib.nullcontext() if self.config.trainable else torch.no_grad():
            tokens: torch.Tensor = self.vision(pixel_values=images).last_hidden_state
        return tokens

    def train(self, mode: bool = True) -> "ReferenceEncoder":
        """Set the training mode; a frozen tower stays in eval mode."""
        return super().train(mode and self.config.trainable)

    def sizes(self) -> EncoderConfig:
        """Return a config that builds the same tower without its source, for own weights."""
        vision = self.vision.config
        return EncoderConfig(
            image_size=vision.image_size,
            patch_size=vision.patch_size,
            hidden_size=vision.hidden_size,
            num_layers=vision.num_hidden_layers,
            num_heads=vision.num_attention_heads,
            intermediate_size=vision.intermediate_size,
            trainable=self.config.trainable,
        )

    def fingerprint(self) -> str:
        """Return a hash of the weights, the same for float32 and bfloat16 copies of them."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.state_dict().items()):
            digest.update(f"{name} {tuple(tensor.shape)}\n".encode())
            data = tensor.detach().to("cpu", torch.bfloat16).contiguous()
            digest.update(data.view(torch.int16).numpy().tobytes())
        return digest.hexdigest()


def _vision_config(config: EncoderConfig) -> SiglipVisionConfig:
    return SiglipVisionConfig(
        image_size=config.image_size,
        patch_size=config.patch_size,
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        num_hidden_layers=config.num_layers,
        num_attention_heads=config.num_heads,
        vision_use_head=False,
    )


def _load_vision(path_or_id: str) -> Any:
    source = str(asset_path(path_or_id)) if path_or_id in available_assets() else path_or_id
    try:
        return SiglipVisionModel.from_pretrained(source, dtype=torch.float32, use_safetensors=True)
    except (OSError, ValueError) as error:
        known = "an asset name, a folder or a hub id"
        problem = "is no loadable SigLIP vision tower"
        if not Path(source).exists():
            problem = "does not exist here and does not load from the hub"
        raise InputError("encoder.path_or_id", path_or_id, problem, f"give {known}") from error
