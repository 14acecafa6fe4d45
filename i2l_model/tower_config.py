"""Settings of the image encoders, apart from the encoders, whose libraries take long to import."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

_TINY_SIZES = dict(image_size=64, patch_size=8, hidden_size=128, num_layers=4, num_heads=4)  # noqa: C408
_SIZES = (*_TINY_SIZES, "intermediate_size")
_DINOV3_SIZES = (
    "patch_size",
    "hidden_size",
    "num_layers",
    "num_heads",
    "intermediate_size",
    "num_registers",
    "gated_mlp",
    "query_bias",
    "key_bias",
    "value_bias",
    "hidden_act",
)


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
        _check_sizes_or_source(self.path_or_id, sizes)
        if self.path_or_id is not None:
            return self
        if sizes["image_size"] % sizes["patch_size"]:
            raise ValueError("image_size must be a multiple of patch_size")
        if sizes["hidden_size"] % sizes["num_heads"]:
            raise ValueError("hidden_size must be a multiple of num_heads")
        return self


class Dinov3Config(BaseModel):
    """A DINOv3 tower: pretrained, or a new one of the given sizes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path_or_id: str | None = Field(
        None, description="Pretrained tower: folder or hub id. None builds one from the sizes."
    )
    patch_size: int | None = Field(None, ge=1, description="Side of a patch in pixels.")
    hidden_size: int | None = Field(None, ge=1, description="Features of a token.")
    num_layers: int | None = Field(None, ge=1, description="Transformer layers.")
    num_heads: int | None = Field(None, ge=1, description="Attention heads.")
    intermediate_size: int | None = Field(None, ge=1, description="Width of the MLPs.")
    num_registers: int | None = Field(None, ge=0, description="Register tokens.")
    gated_mlp: bool | None = Field(None, description="SwiGLU instead of a plain MLP.")
    query_bias: bool | None = Field(None, description="Whether queries have a bias.")
    key_bias: bool | None = Field(None, description="Whether keys have a bias.")
    value_bias: bool | None = Field(None, description="Whether values have a bias.")
    hidden_act: str | None = Field(None, description="Activation of the MLPs: gelu or silu.")
    trainable: bool = Field(
        False, description="Train the tower with the predictor; False freezes its weights."
    )

    @model_validator(mode="after")
    def _check_sizes(self) -> "Dinov3Config":
        sizes = {name: getattr(self, name) for name in _DINOV3_SIZES}
        _check_sizes_or_source(self.path_or_id, sizes)
        if self.path_or_id is not None:
            return self
        missing = [name for name, size in sizes.items() if size is None]
        if missing:
            raise ValueError(f"{missing[0]} is missing; give it, or path_or_id")
        if sizes["hidden_size"] % (4 * sizes["num_heads"]):  # rotary features of two axes
            raise ValueError("hidden_size must be a multiple of 4 * num_heads")
        return self


def _check_sizes_or_source(path_or_id: str | None, sizes: Mapping[str, Any]) -> None:
    """Raise ValueError if a tower's config has both a source and sizes.

    Args:
        path_or_id: Where the tower comes from, or None.
        sizes: Its sizes by name, None for those not set.
    """
    given = [name for name, size in sizes.items() if size is not None]
    if path_or_id is not None and given:
        raise ValueError(f"{given[0]} comes from path_or_id; leave one of the two out")
