"""Bands of noise levels."""

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

HIGH_SIGMA = 0.7  # above this noise level the noisy latents no longer show the style themselves


class SigmaBand(BaseModel):
    """A share of the samples whose noise level is uniform between two values."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    low: float = Field(ge=0, lt=1, description="Least sigma.")
    high: float = Field(gt=0, le=1, description="Greatest sigma.")
    share: float = Field(ge=0, le=1, description="Share of the samples.")

    @model_validator(mode="after")
    def _rises(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"low ({self.low}) must be < high ({self.high}); change either")
        return self
