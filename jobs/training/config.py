"""Settings of a training run."""

import math
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from jobs.training.predictor_options import PredictorOptions
from jobs.training.sigma_bands import SigmaBand


class TrainingConfig(BaseModel):
    """One training of a predictor against a frozen backbone."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    backbone: str = Field(
        default="tiny-zimage", description="Shipped backbone, diffusers folder or hub id."
    )
    predictor: PredictorOptions = Field(
        default_factory=PredictorOptions, description="Size of the predictor."
    )

    steps: int = Field(default=900, ge=1, description="Optimizer steps of the whole run.")
    styles_per_step: int = Field(
        default=12, ge=1, description="Styles a step, over all workers; each gets one LoRA."
    )
    targets_per_style: int = Field(
        default=4, ge=1, description="Target images that share one predicted LoRA."
    )
    min_refs: int = Field(default=1, ge=1, description="Fewest references a step may draw.")
    max_refs: int = Field(default=4, ge=1, description="Most references a step may draw.")
    gradient_accumulation_steps: int = Field(
        default=1, ge=1, description="Forward passes a step; more need less memory."
    )
    gradient_checkpointing: bool = Field(
        default=False, description="Recompute the backbone's blocks: less memory, a third slower."
    )
    sigma_focus: tuple[SigmaBand, ...] = Field(
        default=(),
        description="Bands of noise levels that get more samples than the backbone's own"
        " distribution gives them. One band holds for the whole run; several follow each other,"
        " each fading into the next. Colours are decided above sigma 0.7, texture below 0.5.",
    )

    learning_rate: float = Field(default=5e-4, gt=0, description="Peak learning rate of AdamW.")
    warmup_fraction: float = Field(
        default=0.1, ge=0, lt=1, description="Share of the steps with a rising learning rate."
    )
    final_lr_fraction: float = Field(
        default=0.0, ge=0, le=1, description="Learning rate at the end of the cosine / its peak."
    )
    weight_decay: float = Field(
        default=0.01, ge=0, description="AdamW decay of matrices; vectors and queries have none."
    )
    adam_betas: tuple[float, float] = Field(
        default=(0.9, 0.99), description="AdamW averages of gradient and squared gradient."
    )
    grad_clip: float = Field(default=1.0, gt=0, description="Largest global gradient norm.")
    max_skipped_steps: int = Field(
        default=3,
        ge=0,
        description="Steps in a row that may be left out because a loss or gradient is no finite"
        " number; one more ends the run. Their batches are kept under skipped/ of the output.",
    )
    max_loss_ratio: float | None = Field(
        default=None,
        gt=1,
        description="A step whose loss is over so many times its running mean is left out like one"
        " without a finite gradient; none lets every loss pass.",
    )
    ema_decay: float = Field(
        default=0.99,
        ge=0,
        lt=1,
        description="Decay a step of the averaged weights that are validated and exported.",
    )

    precision: Literal["fp32", "bf16"] = Field(
        default="fp32", description="Weights and activations of predictor and backbone."
    )
    zero_stage: Literal[0, 1, 2, 3] = Field(
        default=2, description="DeepSpeed ZeRO: 1 shards optimizer, 2 gradients, 3 weights too."
    )
    offload_optimizer: bool = Field(
        default=False,
        description="Keep master weights, Adam's moments and the step in the machine's memory: less"
        " of the GPU's, slower steps. Needs zero_stage >= 1.",
    )
    backbone_shards: int = Field(
        default=1,
        ge=1,
        description="Workers that hold the frozen transformer together, each a share of it, and"
        " gather it block by block in every pass (FSDP2): less memory, more traffic. The GPUs of"
        " one machine are a good number; 1 gives every worker all of it.",
    )
    memory_gib: float | None = Field(
        default=None,
        gt=0,
        description="Memory of one worker in GiB; a training that is estimated to need more does"
        " not start. None takes what is found: the GPU's, or an equal share of this machine's.",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="cuda takes one GPU a worker; auto where Ray has enough."
    )
    num_workers: int = Field(default=2, ge=1, description="Training processes, one a GPU.")
    min_workers: int | None = Field(
        default=None,
        ge=1,
        description="Go on with as few processes after nodes were lost, and with up to num_workers"
        " once there are nodes again; none waits for num_workers.",
    )
    threads_per_worker: int = Field(default=1, ge=1, description="CPU threads of one worker.")
    cpus_per_worker: float = Field(
        default=1.0, gt=0, description="CPUs that Ray reserves for one worker."
    )
    max_failures: int = Field(
        default=0, ge=0, description="Restarts from the last checkpoint after a worker died."
    )
    storage_patience_s: float = Field(
        default=900, ge=0, description="How long an upload waits for storage that does not answer."
    )
    collective_timeout_s: int = Field(
        default=1800,
        ge=1,
        description="Seconds after which a worker that the others wait for is taken for hung: all"
        " are started again, see max_failures. Longer than storage_patience_s, and than worker 0"
        " needs for a validation image, which it draws alone.",
    )
    aspect_buckets: tuple[tuple[int, int], ...] = Field(
        default=(),
        description="Width and height in pixels of the sizes that targets are brought to, each"
        " target to the one nearest in shape. Empty: the backbone's own square.",
    )
    cache: bool = Field(
        default=True,
        description="Encode targets, prompts and, with frozen encoders, references once, in a Ray"
        " Data job before the training; off encodes them every step.",
    )
    cache_uri: str | None = Field(
        default=None,
        description="Folder that trainings share their cache in; cache/ of the output by default.",
    )
    encode_batch_size: int = Field(
        default=32, ge=1, description="Images or prompts encoded at once for the cache."
    )
    prefetch: int = Field(default=2, ge=1, description="Batches that are loaded ahead.")
    loaders_per_worker: int = Field(
        default=0,
        ge=0,
        description="Ray Data actors that load batches for one worker, on any node; 0 loads them"
        " in a thread of the worker.",
    )
    cpus_per_loader: float = Field(
        default=1.0, gt=0, description="CPUs that Ray reserves for one such actor."
    )

    checkpoint_every: int = Field(default=200, ge=1, description="Steps between checkpoints.")
    keep_last: int = Field(default=2, ge=1, description="Checkpoints kept.")
    log_every: int = Field(default=10, ge=1, description="Steps between logged metrics.")
    profile: bool = Field(
        default=False, description="Write a torch profiler trace of three steps of rank 0."
    )
    validate_every: int = Field(default=150, ge=1, description="Steps between validations.")
    validation_styles: int = Field(
        default=16, ge=1, description="Styles of the val split that are measured."
    )
    validation_targets: int = Field(default=2, ge=1, description="Targets a validation style.")
    validation_sigmas: tuple[float, ...] = Field(
        default=(0.5, 0.75, 0.9), min_length=1, description="Fixed noise levels of the losses."
    )
    grid_styles: int = Field(
        default=4, ge=0, description="Rows of the validation image; 0 draws none."
    )
    grid_inference_steps: int = Field(
        default=10, ge=1, description="Euler steps of the validation image."
    )
    seed: int = Field(default=0, ge=0, description="Seed of weights, batches and noise.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.min_refs > self.max_refs:
            raise ValueError(
                f"min_refs ({self.min_refs}) must be <= max_refs ({self.max_refs}); lower it"
            )
        if self.max_refs > self.predictor.max_refs:
            raise ValueError(
                f"max_refs ({self.max_refs}) must be <= predictor.max_refs"
                f" ({self.predictor.max_refs}); raise the latter"
            )
        if not all(side > 0 for size in self.aspect_buckets for side in size):
            raise ValueError(
                f"aspect_buckets ({self.aspect_buckets}) must be sizes in pixels; change them"
            )
        if not all(0 < sigma <= 1 for sigma in self.validation_sigmas):
            raise ValueError(
                f"validation_sigmas ({self.validation_sigmas}) must lie in (0, 1]; change them"
            )
        return self

    @model_validator(mode="after")
    def _can_be_laid_out(self) -> Self:
        if self.precision == "bf16" and self.zero_stage == 0:
            raise ValueError(
                "precision bf16 needs zero_stage >= 1, not 0, for its float32 master copies; raise"
                " zero_stage"
            )
        if self.offload_optimizer and self.zero_stage == 0:
            raise ValueError(
                f"offload_optimizer needs zero_stage >= 1, not {self.zero_stage}; raise zero_stage"
            )
        parts = self.num_workers * self.gradient_accumulation_steps
        if self.styles_per_step < parts:
            raise ValueError(
                f"styles_per_step ({self.styles_per_step}) must be >= num_workers ×"
                f" gradient_accumulation_steps ({parts}); raise it"
            )
        for name in ("min_workers", "backbone_shards"):
            value = getattr(self, name)
            if value is not None and value > self.num_workers:
                raise ValueError(
                    f"{name} ({value}) must be <= num_workers ({self.num_workers}); lower it"
                )
        if self.collective_timeout_s <= self.storage_patience_s:
            raise ValueError(
                f"collective_timeout_s ({self.collective_timeout_s}) must be > storage_patience_s"
                f" ({self.storage_patience_s:g}), or a worker that waits for storage is taken for"
                " hung; raise it"
            )
        return self

    @property
    def worker_range(self) -> int | tuple[int, int]:
        """Number of workers, or the least and the most of them."""
        return (
            self.num_workers if self.min_workers is None else (self.min_workers, self.num_workers)
        )

    def slots(self, part: int, world_size: int) -> range:
        """Styles of one forward pass, as positions in the step.

        Args:
            part: Which of the ``world_size * gradient_accumulation_steps`` passes of the step; they
                differ by at most one style.
            world_size: Number of workers.
        """
        parts = world_size * self.gradient_accumulation_steps
        first, last = (self.styles_per_step * i // parts for i in (part, part + 1))
        return range(first, last)

    @property
    def fewest_workers(self) -> int:
        """With how many processes the training still goes on."""
        return self.num_workers if self.min_workers is None else self.min_workers

    @property
    def micro_styles(self) -> int:
        """Most styles of one forward pass of one worker, where the fewest are there."""
        parts = self.fewest_workers * self.gradient_accumulation_steps
        return -(-self.styles_per_step // parts)

    def weight(self, slots: range, world_size: int) -> float:
        """Factor on the mean loss of a pass that gives each style of the step the same weight."""
        parts = world_size * self.gradient_accumulation_steps
        return len(slots) * parts / self.styles_per_step

    def learning_rate_at(self, step: int) -> float:
        """Learning rate of ``step``, counted from 0: linear warm-up, then a cosine."""
        num_warmup = max(1, round(self.warmup_fraction * self.steps))
        if step < num_warmup:
            return self.learning_rate * (step + 1) / num_warmup
        progress = (step - num_warmup) / max(1, self.steps - num_warmup)
        floor = self.final_lr_fraction
        return self.learning_rate * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress)))

    def sigma_bands_at(self, step: int) -> tuple[SigmaBand, ...]:
        """The bands of ``step``, counted from 0, with the shares they have then."""
        position = (len(self.sigma_focus) - 1) * min(1.0, step / max(1, self.steps - 1))
        weights = [max(0.0, 1 - abs(i - position)) for i in range(len(self.sigma_focus))]
        return tuple(
            band.model_copy(update={"share": band.share * weight})
            for band, weight in zip(self.sigma_focus, weights, strict=True)
        )

    def resolved(self) -> dict[str, Any]:
        """Every setting as JSON-ready values, as stored with predictors and runs."""
        return self.model_dump(mode="json")
