"""What an evaluation measures and what the gate asks of it."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Dtype = Literal["float32", "bfloat16"]
GuidanceVariant = Literal["positive_only", "symmetric"]
PromptReaderName = Literal["auto", "classifier", "backbone"]


class EvaluationConfig(BaseModel):
    """Held-out styles, sampling, baselines and the report."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    backbone: str | None = Field(
        None, description="backbone name or folder; empty takes the one the predictor names"
    )
    device: str = Field("cpu", description="torch device of every worker, e.g. cpu or cuda")
    dtype: Dtype = Field("float32", description="backbone weights and activations")
    seed: int = Field(0, ge=0, description="chooses styles, references, prompts and noise")

    num_styles: int = Field(32, ge=2, description="held-out styles; the unit of every interval")
    num_prompts: int = Field(4, ge=1, description="prompts a style, of contents no reference shows")
    held_out_contents: tuple[str, ...] = Field(
        (),
        description="stylegrid contents that no picture of the corpus shows; up to half of the "
        "prompts ask for them",
    )
    num_seeds: int = Field(1, ge=1, description="samples a prompt")
    num_refs: tuple[int, ...] = Field(
        (1, 4), min_length=1, description="reference counts; each n is a condition i2l_<n>"
    )
    max_pairs_per_style: int = Field(16, ge=1, description="test pairs read of one style")

    num_inference_steps: int = Field(10, ge=1, description="Euler steps a sample")
    guidance_scale: float = Field(1.0, ge=1.0, description="classifier-free guidance; 1 is off")
    guidance: GuidanceVariant = Field(
        "positive_only", description="positive_only leaves the negative branch without the LoRA"
    )
    image_size: int | None = Field(None, ge=16, description="pixels; empty takes the backbone's")
    batch_size: int = Field(64, ge=1, description="images a forward pass while sampling")

    style_lora_num_styles: int = Field(
        4, ge=0, description="styles that also get a LoRA trained per style; 0 drops the baseline"
    )
    style_lora_steps: tuple[int, ...] = Field(
        (25, 50, 100, 200), min_length=1, description="step budgets at which it is sampled"
    )
    style_lora_rank: int = Field(4, ge=1, description="rank of the per-style LoRA")
    style_lora_learning_rate: float = Field(1e-3, gt=0, description="AdamW learning rate")
    style_lora_batch_size: int = Field(4, ge=1, description="noised references a training step")

    loss_num_targets: int = Field(4, ge=1, description="held-out targets a style for the loss")
    loss_min_sigma: float = Field(
        0.7, ge=0.0, lt=1.0, description="noise level above which the flow loss is taken"
    )
    prompt_reader: PromptReaderName = Field(
        "auto",
        description="who reads the drawn content; auto takes the content classifier where it "
        "knows every prompt, else the backbone's own denoising loss",
    )
    copy_max_hamming: int = Field(4, ge=0, le=64, description="perceptual-hash bits of a copy")
    copy_max_colour: float = Field(
        0.05, ge=0.0, description="mean Lab distance / 100 below which equal hashes are a copy"
    )
    bootstrap_num_samples: int = Field(1000, ge=100, description="resamples an interval")

    styles_per_chunk: int = Field(8, ge=1, description="styles a unit of resumable work")
    num_workers: int = Field(2, ge=0, description="Ray actors; 0 evaluates in this process")
    threads_per_worker: int = Field(1, ge=1, description="torch threads of an actor")
    cpus_per_worker: float = Field(1.0, ge=0, description="CPUs that an actor reserves in Ray")
    gpus_per_worker: float = Field(0.0, ge=0, description="GPUs that an actor reserves in Ray")

    report_num_styles: int = Field(8, ge=1, description="rows of a picture grid")
    report_num_prompts: int = Field(2, ge=1, description="picture grids, one a prompt")
    report_image_size: int = Field(96, ge=16, description="pixels of a picture in the grid")
    sample_num_styles: int = Field(4, ge=0, description="styles whose LoRAs and images are kept")

    @model_validator(mode="after")
    def _check_lists(self) -> Self:
        for name in ("num_refs", "style_lora_steps"):
            values: tuple[int, ...] = getattr(self, name)
            if any(value < 1 for value in values) or list(values) != sorted(set(values)):
                raise ValueError(f"{name} {values} must be rising positive numbers")
        return self

    @property
    def max_refs(self) -> int:
        """Largest reference count."""
        return max(self.num_refs)

    @property
    def images_per_style(self) -> int:
        """Samples of one style in one condition."""
        return self.num_prompts * self.num_seeds


class GateConfig(BaseModel):
    """Bounds of the promotion gate. All checks must pass; a missing value fails its check."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    conditions: tuple[str, ...] = Field(
        ("i2l_1", "i2l_4"), min_length=1, description="conditions that have to pass"
    )
    min_num_styles: int = Field(2, ge=2, description="held-out styles the report must rest on")
    style_metrics: tuple[str, ...] = Field(
        ("style_overall", "style_background", "style_figure"),
        min_length=1,
        description="style distances gated where oracle images exist",
    )
    reference_style_metrics: tuple[str, ...] = Field(
        ("style_references",), min_length=1, description="the same for corpora without oracle"
    )
    min_style_gain: float = Field(
        0.10, ge=0.0, description="share of the null's style distance that must be gone"
    )
    require_separate_intervals: bool = Field(
        True,
        description="the 95% intervals of a condition's style distances must lie below those of "
        "the null and of wrong references, and its flow loss at high noise below theirs by a "
        "paired difference whose 95% interval lies above 0",
    )
    min_closed: dict[str, dict[str, float]] = Field(
        {},
        description="condition -> part -> share of the way from the null to the per-style LoRA "
        "that must be closed; parts are those of `closed` in the report",
    )
    max_style_loss: float = Field(
        0.005, ge=0.0, description="style distance above the champion's that is let through"
    )
    min_prompt_accuracy: float = Field(
        0.5, ge=0.0, le=1.0, description="share of samples whose prompted content is read"
    )
    max_prompt_drop: float = Field(0.05, ge=0.0, description="accuracy below the null's")
    max_leakage_excess: float = Field(
        0.03, ge=0.0, description="share of samples that show a reference's content, over the null"
    )
    max_leakage: float | None = Field(
        None,
        ge=0.0,
        le=1.0,
        description="share of samples that show a reference's content, whatever the null's; empty "
        "leaves it unchecked, for backbones that draw it or readers that see it without a LoRA",
    )
    max_quality_loss: float = Field(
        0.10,
        ge=0.0,
        description="sharpness and contrast error above the null's, and the share by which KID "
        "may exceed the null's or the champion's upper interval end",
    )
    max_copy_excess: float = Field(
        0.01, ge=0.0, description="share of copied references above that of real same-style images"
    )
    max_worst_decile_loss: float = Field(
        0.02, ge=0.0, description="style distance of the worst tenth of styles above the champion's"
    )
    max_failed: float = Field(0.0, ge=0.0, description="share of flat or broken samples")
    require_same_held_out: bool = Field(
        False,
        description="refuse a champion judged on other held-out styles; otherwise its figures are "
        "scaled by the two nulls before they are compared",
    )
