"""The state of one training worker, and what happens in a step, a validation, a checkpoint."""

# N styles, K targets a style, F references, B = N * K

import json
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
import torch.distributed as dist

from i2l_model.predictor import LoraPredictor
from jobs import storage
from jobs.training.averaging import WeightAverage
from jobs.training.checkpointing import Checkpointer
from jobs.training.checkpoints import TrainerState
from jobs.training.deepspeed_config import optimizer_step, set_learning_rate
from jobs.training.encoding import encode_batch, supervise
from jobs.training.entry import TrainingDiverged
from jobs.training.epochs import StyleRecord, count_epochs
from jobs.training.feed import BatchFeed
from jobs.training.grid import validation_grid
from jobs.training.job import TrainingJob
from jobs.training.noise import draw_noise
from jobs.training.objective import StyleObjective
from jobs.training.patience import Patience
from jobs.training.recorder import Recorder
from jobs.training.results import publish_results
from jobs.training.sampling import StyleBatch, StyleSampler, describe_batch
from jobs.training.sharding import even_passes
from jobs.training.step_metrics import StepMetrics
from jobs.training.validation import Validator

SKIPPED_FOLDER = "skipped"
_SLOW_INPUT = 0.05  # share of the step time from which the progress line tells it
_SPIKE_DECAY = 0.98  # of the running mean that a loss is compared with


@dataclass
class Trainer:
    """One rank of a training.

    Attributes:
        job: The job.
        engine: DeepSpeed engine around the objective.
        average: Averaged weights, which are validated and exported.
        sampler: Chooses the groups of a step.
        feed: Gives their data, loaded ahead.
        validator: Held-out losses; None without a val split.
        template: Predictor on the CPU that takes the averaged weights for export; on rank 0.
        recorder: Progress, metrics and images; writes on rank 0 only.
        state: Step, best step and history.
        best: The weights of the best step; on rank 0.
    """

    job: TrainingJob
    engine: Any
    average: WeightAverage
    sampler: StyleSampler
    feed: BatchFeed
    validator: Validator | None
    template: LoraPredictor | None
    recorder: Recorder
    state: TrainerState
    best: dict[str, torch.Tensor] = field(default_factory=dict)
    metrics: StepMetrics = field(init=False)
    checkpointer: Checkpointer = field(init=False)
    patience: Patience = field(init=False)
    styles: list[StyleRecord] = field(default_factory=list)
    spike: str = ""
    passes: list[tuple[StyleBatch, torch.Tensor, torch.Tensor]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.metrics = StepMetrics(self.objective.backbone.device)
        self.checkpointer = Checkpointer(self.job, self.engine, self.average, self.recorder.message)
        self.patience = Patience(self.job.config.storage_patience_s, self.recorder.message)

    @property
    def objective(self) -> StyleObjective:
        """The module inside the engine."""
        module: StyleObjective = self.engine.module
        return module

    @property
    def rank(self) -> int:
        """This worker's number; 0 writes."""
        return dist.get_rank()

    # Steps

    def train_step(self, step: int) -> None:
        """One optimizer step; its passes are slots of the same global batch."""
        config = self.job.config
        set_learning_rate(self.engine, config.learning_rate_at(step))
        world_size = dist.get_world_size()
        for micro in range(config.gradient_accumulation_steps):
            slots = config.slots(micro * world_size + self.rank, world_size)
            grad_norm = self._pass(step, micro, slots)
        if grad_norm is not None and math.isfinite(grad_norm):
            self._count_step(grad_norm)
        else:
            self._skip(step)
        self.passes.clear()
        self.spike = ""
        self.metrics.num_steps += 1
        self.state.step = step + 1
        if self.state.step % config.log_every == 0 or self.state.step == config.steps:
            self._log(self.state.step)

    def _pass(self, step: int, micro: int, slots: range) -> float | None:
        """One forward and backward; the gradient's norm where the step ends, else None."""
        backbone, config = self.objective.backbone, self.job.config
        batch = self.sampler.batch(step, slots)
        styles = zip(slots, batch.styles_N.tolist(), strict=True)
        self.styles += [(step, slot, style) for slot, style in styles]
        with self.metrics.timed("data_wait"):
            loaded = self.feed.get(step, micro)
        with self.metrics.timed("encode"):
            encoded = encode_batch(backbone, self.sampler.index, batch, loaded)
            noise = [
                draw_noise(backbone, config, data.shape, step, slot)
                for data, slot in zip(encoded.data, slots, strict=True)
            ]
        with self.metrics.timed("forward"):
            parts = even_passes(supervise(encoded, noise), config, backbone.device)
            loss_NK = self.engine(encoded.references, parts)
        with self.metrics.timed("backward"):
            # Passes may differ by a style: every style weighs the same in the mean over all.
            loss = loss_NK.mean() * config.weight(slots, dist.get_world_size())
            self.engine.backward(self._without_spike(loss))
        with self.metrics.timed("optimizer"):
            grad_norm = optimizer_step(self.engine)
        sigmas_NK = torch.stack([group.sigmas_K for group in noise])
        self.passes.append((batch, sigmas_NK, loss_NK.detach().cpu()))
        self.metrics.num_samples += loss_NK.numel()
        return grad_norm

    def _without_spike(self, loss: torch.Tensor) -> torch.Tensor:
        """The loss, or no number where it is far above those before on the mean of all ranks.

        A step whose loss is no number is left out, by all ranks alike.
        """
        factor = self.job.config.max_loss_ratio
        if factor is None:
            return loss
        mean = loss.detach().clone()
        dist.all_reduce(mean)
        value, before = float(mean) / dist.get_world_size(), self.state.mean_loss
        if before is not None and value > factor * before:
            self.spike = f"the loss {value:.4g} is over {factor:g} times its mean {before:.4g}"
            return loss * math.nan
        if math.isfinite(value):
            decay = 0.0 if before is None else _SPIKE_DECAY
            self.state.mean_loss = decay * (before or 0.0) + (1 - decay) * value
        return loss

    def _count_step(self, grad_norm: float) -> None:
        """Add a step that was made to the sums."""
        self.average.update()
        self.state.num_skipped = 0
        self.metrics.num_made += 1
        self.metrics.grad_norm += grad_norm
        for _, sigmas_NK, loss_NK in self.passes:
            self.metrics.add_losses(loss_NK.flatten().float(), sigmas_NK.flatten())

    def _skip(self, step: int) -> None:
        """Keep the batch of a step that was left out; too many in a row end the run.

        Raises:
            TrainingDiverged: Naming the step.
        """
        self.state.num_skipped += 1
        skipped = storage.join_uri(self.job.output_uri, SKIPPED_FOLDER)
        record = [describe_batch(self.sampler.index, *part) for part in self.passes]
        name = f"step-{step + 1:08d}-rank-{self.rank:05d}.json"
        data = (json.dumps(record, indent=1) + "\n").encode()
        write = partial(storage.write_bytes, storage.join_uri(skipped, name), data)
        self.patience(write, f"writing {name}")
        reason = self.spike or "the gradient is no finite number"
        problem = f"{reason} at step {step + 1}; its batch is in {skipped}"
        self.recorder.message(f"left out: {problem}")
        if self.state.num_skipped > self.job.config.max_skipped_steps:
            raise TrainingDiverged(
                f"{problem}; {self.state.num_skipped} steps in a row: lower"
                " training.learning_rate or training.predictor.lora_scale"
            )

    def _count_epochs(self) -> None:
        count_epochs(self.styles, self.state, len(self.sampler.index.styles))
        self.styles = []

    def _log(self, step: int) -> None:
        """Combine the ranks' sums and record them."""
        self._count_epochs()
        config = self.job.config
        metrics = {
            **self.metrics.combined(),
            "optim/lr": config.learning_rate_at(step - 1),
            "data/epoch": step * config.styles_per_step / len(self.sampler.index.styles),
        }
        self.state.train_time_s += metrics["time/step_s"] * self.metrics.num_steps
        self._record(step, metrics)
        loss = metrics.get("train/loss")
        note = "all steps left out" if loss is None else f"loss {loss:.4f}"
        if "val/loss_right" in self.state.best_metrics:
            note += f", best val {self.state.best_metrics['val/loss_right']:.4f}"
        note += f", {metrics['data/samples_per_s']:.3g} samples/s"
        if metrics["time/data_wait_s"] > _SLOW_INPUT * metrics["time/step_s"]:
            note += f", {metrics['time/data_wait_s'] / metrics['time/step_s']:.0%} waiting for data"
        self.recorder.progress("train", step, config.steps, note)
        self.metrics = StepMetrics(self.objective.backbone.device)

    def _record(self, step: int, metrics: dict[str, float]) -> None:
        self.state.history.append({"step": step, **metrics})
        self.recorder.metrics(metrics, step)

    @contextmanager
    def _pausing(self) -> Iterator[None]:
        """Do something between steps, outside of their time."""
        started = time.monotonic()
        yield
        self.metrics.pause(time.monotonic() - started)

    # Validation

    def validate(self, step: int) -> None:
        """Measure the averaged weights, draw the grid, and keep the best weights."""
        with self._pausing():
            metrics = self._validated(step)
            self._keep_best(step, metrics)
            dist.barrier()

    def _validated(self, step: int) -> dict[str, float]:
        if self.validator is None:
            return {}
        with self.average.applied():
            metrics = self.validator.losses(self.objective)
            # The workers of a sharded backbone draw together.
            draw = self.rank == 0 or self.job.config.backbone_shards > 1
            grid = validation_grid(self.objective, self.validator, self.job.config, draw=draw)
        self._record(step, metrics | (grid.style if grid is not None else {}))
        if grid is not None:
            self.recorder.image(grid.image, step)
        return metrics

    def _keep_best(self, step: int, metrics: dict[str, float]) -> None:
        best = self.state.best_metrics.get("val/loss_right", math.inf)
        if metrics.get("val/loss_right", -math.inf) < best:
            self.state.best_step = step
            self.state.best_metrics = metrics
            self.best = self.average.whole_state()

    # Checkpoints

    def checkpoint(self, step: int) -> None:
        """Take a checkpoint together; it is written and uploaded while the training goes on."""
        started = time.monotonic()
        with self._pausing():
            self._count_epochs()
            self.checkpointer.take(self.state, self.best)
        self._record(step, {"time/checkpoint_s": time.monotonic() - started})

    def restore(self) -> None:
        """Go on from the newest whole checkpoint of this attempt, if there is one."""
        restored = self.checkpointer.restore()
        if restored is not None:
            self.state, self.best = restored
        self.metrics = StepMetrics(self.objective.backbone.device)  # the first step begins now

    def finish(self) -> None:
        """Publish the best predictor, or the last one where nothing was validated."""
        known = self.state.best_step is not None
        weights = self.best if known else self.average.whole_state()
        if self.template is not None:
            publish = partial(publish_results, self.job, self.state, self.template, weights)
            self.patience(publish, "publishing the predictor")
