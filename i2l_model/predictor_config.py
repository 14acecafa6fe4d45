"""What a predictor is made of; stored as config.json beside its weights."""

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from i2l_model.errors import InputError
from i2l_model.lora.factors import LoraTarget
from i2l_model.tower_config import Dinov3Config, EncoderConfig

if TYPE_CHECKING:
    from i2l_model.backbones.base import Backbone

logger = logging.getLogger(__name__)


class PredictorConfig(BaseModel):
    """Sizes of a LoRA predictor and the layers it predicts for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1, 2] = Field(
        2,
        description="Architecture: 2 is learned queries in a transformer; 1 decodes pooled image "
        "features and reads neither dim, depth, num_heads nor queries_per_factor.",
    )
    backbone: str = Field(description="Name of the backbone it was made for.")
    targets: tuple[LoraTarget, ...] = Field(
        min_length=1, description="Layers of the backbone that the LoRA updates."
    )
    rank: int = Field(
        ge=1, description="Rank of the predicted LoRA; of version 1, for each reference."
    )
    dim: int = Field(ge=1, description="Features of the predictor's transformer.")
    depth: int = Field(ge=1, description="Blocks of the predictor's transformer.")
    num_heads: int = Field(ge=1, description="Attention heads; divides dim.")
    compress_dim: int = Field(ge=1, description="Width c of the heads, dim -> c -> in or out.")
    queries_per_factor: int = Field(
        1,
        ge=1,
        description="Queries for each layer and side; each one's head emits "
        "rank / queries_per_factor rows. rank is the paper's form, 1 the cheapest.",
    )
    lora_scale: float = Field(
        0.3, gt=0, allow_inf_nan=False, description="Factor on the update, folded into lora_B."
    )
    encoder: EncoderConfig = Field(description="The image encoder.")
    dinov3: Dinov3Config | None = Field(None, description="A second image encoder, or none.")
    max_refs: int = Field(4, ge=1, description="Most references of one LoRA.")

    @model_validator(mode="after")
    def _check_sizes(self) -> "PredictorConfig":
        if self.dim % self.num_heads:
            raise ValueError(f"dim ({self.dim}) must be a multiple of num_heads ({self.num_heads})")
        if self.rank % self.queries_per_factor:
            raise ValueError(
                f"rank ({self.rank}) must be a multiple of queries_per_factor "
                f"({self.queries_per_factor})"
            )
        if len({target.name for target in self.targets}) < len(self.targets):
            raise ValueError("targets holds a layer twice; list every layer once")
        for target in self.targets:
            limit = min(target.in_features, target.out_features)
            if self.rank > limit:
                raise ValueError(
                    f"rank ({self.rank}) must be <= min(in, out) ({limit}) for '{target.name}'; "
                    "lower rank or drop the target"
                )
        return self

    def check_backbone(self, backbone: "Backbone") -> None:
        """Raise InputError unless the LoRA's layers are the backbone's.

        A backbone of another name with the same layers, e.g. a fine-tune, passes with a warning.
        """
        available = set(backbone.lora_targets())
        missing = [target.name for target in self.targets if target not in available]
        if missing:
            raise InputError(
                "backbone",
                backbone.name,
                f"has no layer '{missing[0]}' of the predictor's sizes",
                f"use the backbone the predictor was made for: {self.backbone}",
            )
        if backbone.name != self.backbone:
            logger.warning(
                "predictor was made for backbone %s and is used with %s",
                self.backbone,
                backbone.name,
            )


def read_config(path: Path) -> PredictorConfig:
    """Read a predictor's config.json.

    Raises:
        InputError: If the file is missing, is no JSON or holds an invalid setting.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        problem = "does not exist" if not path.exists() else "is no readable JSON"
        raise InputError("predictor", path, problem, "give a folder written by training") from error
    try:
        return PredictorConfig.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "config"
        raise InputError(
            "predictor", path, f"has an invalid {where}: {first['msg']}", "restore the file"
        ) from error
