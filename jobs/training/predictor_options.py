"""Settings of the predictor that a training makes."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from i2l_model.tower_config import Dinov3Config, EncoderConfig


class PredictorOptions(BaseModel):
    """Size of the predictor; what depends on the backbone is filled in when it is loaded."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1, 2] = Field(
        default=2,
        description="Architecture: 2 is learned queries in a transformer, 1 the baseline on pooled"
        " features, whose rank grows with the references.",
    )
    rank: int = Field(
        default=4, ge=1, description="Rank of every predicted LoRA pair; the file grows with it."
    )
    dim: int = Field(default=128, ge=8, description="Features of a predictor token.")
    depth: int = Field(default=2, ge=1, description="Transformer blocks of the predictor.")
    num_heads: int = Field(default=4, ge=1, description="Attention heads; divide dim.")
    compress_dim: int = Field(
        default=32, ge=1, description="Features between a query and a LoRA row (dim → c → in)."
    )
    queries_per_factor: int = Field(
        default=1,
        ge=1,
        description="Queries a layer and side, 1..rank; fewer are faster, each then emits"
        " rank / queries rows.",
    )
    lora_scale: float = Field(
        default=0.3, gt=0, description="Factor on B·A; larger learns faster and less stably."
    )
    max_refs: int = Field(default=4, ge=1, description="Most reference images of one prediction.")
    encoder: EncoderConfig = Field(
        default_factory=EncoderConfig, description="Image encoder of the references."
    )
    dinov3: Dinov3Config | None = Field(
        default=None, description="Second image encoder of the references, or none."
    )
    target_modules: tuple[str, ...] = Field(
        default=(),
        description="Regular expressions searched in layer names; only layers that match one get a"
        " LoRA. Empty: all LoRA targets of the backbone.",
    )

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        if self.dim % self.num_heads:
            raise ValueError(
                f"num_heads ({self.num_heads}) must divide dim ({self.dim}); change either"
            )
        if self.rank % self.queries_per_factor:
            raise ValueError(
                f"queries_per_factor ({self.queries_per_factor}) must divide rank ({self.rank});"
                " change either"
            )
        return self
