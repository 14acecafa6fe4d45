"""The main image encoder: reference images to SigLIP's patch tokens, or to its pooled features."""

# B images, H W pixels, T patch tokens, D features

from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from transformers import SiglipVisionConfig, SiglipVisionModel

from i2l_model.assets import asset_path, available_assets
from i2l_model.errors import InputError
from i2l_model.tower import VisionTower, check_sizes_or_source, load_tower

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
        check_sizes_or_source(self.path_or_id, sizes)
        if self.path_or_id is not None:
            return self
        if sizes["image_size"] % sizes["patch_size"]:
            raise ValueError("image_size must be a multiple of patch_size")
        if sizes["hidden_size"] % sizes["num_heads"]:
            raise ValueError("hidden_size must be a multiple of num_heads")
        return self


class ReferenceEncoder(VisionTower):
    """A SigLIP vision tower that returns its patch tokens after the final layer norm.

    Args:
        config: Which tower.
        pooled: Return the pooled features, as the only token, instead of the patches.

    Raises:
        InputError: If ``path_or_id`` holds no such tower.
    """

    def __init__(self, config: EncoderConfig, *, pooled: bool = False) -> None:
        if config.path_or_id is None:
            vision: Any = SiglipVisionModel(_vision_config(config, pooled))
        else:
            vision = load_tower(SiglipVisionModel, config.path_or_id, "encoder", "SigLIP")
        if pooled and not vision.use_head:
            problem = "has no head, whose pooled features version 1 reads"
            raise InputError("encoder.path_or_id", config.path_or_id, problem, "give a whole tower")
        if vision.use_head and not pooled:  # its weights would get no gradient
            vision.use_head = False
            del vision.head
        super().__init__(vision, trainable=config.trainable, pooled=pooled)
        self.config = config

    @property
    def image_size(self) -> int:
        """Side of the input images in pixels."""
        return int(self.vision.config.image_size)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the patch tokens (B, T, D) of images (B, 3, H, W) in [-1, 1], H = W = image_size.

        Raises:
            InputError: If the images have another size.
        """
        self.check_images(images, self.image_size)
        with self.gradients():
            output = self.vision(pixel_values=images)
        tokens: torch.Tensor = output.last_hidden_state
        return output.pooler_output[:, None] if self.pooled else tokens

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


def encoder_sizes(config: EncoderConfig) -> EncoderConfig:
    """Return the same tower given by its sizes; of a pretrained one, only its config is read.

    Raises:
        InputError: If ``path_or_id`` holds no such config.
    """
    if config.path_or_id is None:
        return config
    shipped = config.path_or_id in available_assets()
    source = str(asset_path(config.path_or_id)) if shipped else config.path_or_id
    try:
        vision: Any = SiglipVisionConfig.from_pretrained(source)
    except (OSError, ValueError) as error:
        problem, fix = "has no readable config of a SigLIP vision tower", "check the name"
        raise InputError("encoder.path_or_id", config.path_or_id, problem, fix) from error
    return EncoderConfig(
        image_size=vision.image_size,
        patch_size=vision.patch_size,
        hidden_size=vision.hidden_size,
        num_layers=vision.num_hidden_layers,
        num_heads=vision.num_attention_heads,
        intermediate_size=vision.intermediate_size,
        trainable=config.trainable,
    )


def _vision_config(config: EncoderConfig, pooled: bool) -> SiglipVisionConfig:
    return SiglipVisionConfig(
        image_size=config.image_size,
        patch_size=config.patch_size,
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        num_hidden_layers=config.num_layers,
        num_attention_heads=config.num_heads,
        vision_use_head=pooled,
    )
