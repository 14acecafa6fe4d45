"""The state of one training worker, and what happens in a step, a validation, a checkpoint."""

# N styles, K targets a style, F references, B = N * K, C channels, h w latent cells

import json
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import ray.train
import torch
import torch.distributed as dist

from i2l_model.predictor import LoraPredictor
from i2l_model.weights import read_weights, write_weights
from jobs import storage
from jobs.training import checkpoints
from jobs.training.averaging import WeightAverage
from jobs.training.config import HIGH_SIGMA
from jobs.training.deepspeed_config import optimizer_step, set_learning_rate
from jobs.training.encoding import TargetEncoder
from jobs.training.grid import validation_grid
from jobs.training.job import TrainingJob
from jobs.training.objective import StyleObjective, Supervision
from jobs.training.patience import patiently
from jobs.training.recorder import Recorder
from jobs.training.results import publish_results
from jobs.training.sampling import StyleBatch, StyleSampler, describe_batch, draw_noise
from jobs.training.trained_state import gather_state, scatter_state
from jobs.training.validation import Validator, gather_references

SKIPPED_FOLDER = "skipped"

_Result = TypeVar("_Result")


def _set_event() -> threading.Event:
    event = threading.Event()
    event.set()
    return event


class TrainingDiverged(RuntimeError):
    """Too many steps in a row had no finite gradient."""


@dataclass(slots=True)
class StepSums:
    """Sums over the steps since the last log line, on this rank."""

    loss: float = 0.0
    num: int = 0
    high_loss: float = 0.0
    num_high: int = 0
    num_steps: int = 0
    grad_norm: float = 0.0
    styles: list[tuple[int, int, int]] = field(default_factory=list)  # step, slot, style
    started: float = field(default_factory=time.monotonic)


@dataclass
class Trainer:
    """One rank of a training.

    Attributes:
        job: The job.
        engine: DeepSpeed engine around the objective.
        average: Averaged weights, which are validated and exported.
        sampler: Chooses the groups of a step.
        encoder: Latents and prompt embeddings of the targets.
        validator: Held-out losses; None without a val split.
        template: Predictor on the CPU that takes the averaged weights for export; on rank 0.
        recorder: Progress, metrics and images; writes on rank 0 only.
        state: Step, best step and history.
    """

    job: TrainingJob
    engine: Any
    average: WeightAverage
    sampler: StyleSampler
    encoder: TargetEncoder
    validator: Validator | None
    template: LoraPredictor | None
    recorder: Recorder
    state: checkpoints.TrainerState
    best: dict[str, torch.Tensor] = field(default_factory=dict)
    sums: StepSums = field(default_factory=StepSums)
    uploaded: threading.Event = field(default_factory=_set_event)
    micro_batches: list[tuple[StyleBatch, torch.Tensor, torch.Tensor]] = field(default_factory=list)

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
        """One optimizer step; its micro batches are slots of the same global batch."""
        config = self.job.config
        set_learning_rate(self.engine, config.learning_rate_at(step))
        world_size = dist.get_world_size()
        for micro in range(config.gradient_accumulation_steps):
            part = micro * world_size + self.rank
            self._micro_step(step, config.slots(part, world_size))
        self.sums.num_steps += 1
        self.state.step = step + 1
        if self.state.step % config.log_every == 0 or self.state.step == config.steps:
            self._log(self.state.step)

    def _micro_step(self, step: int, slots: range) -> None:
        batch = self.sampler.batch(step, slots)
        styles = zip(slots, batch.styles_N.tolist(), strict=True)
        self.sums.styles += [(step, slot, style) for slot, style in styles]
        targets_B = batch.targets_NK.reshape(-1)
        data = self.encoder.latents(targets_B)
        noise = draw_noise(self.objective.backbone, self.job.config, data.shape[1:], step, slots)
        supervision = Supervision(
            data, noise.noise_BChw, noise.sigmas_B, self.encoder.prompt_embeds(targets_B)
        )
        references = gather_references(self.sampler.store, batch.refs_NF)
        loss_B = self.engine(references, supervision)
        # Parts may differ by a style: every style weighs the same in the mean over all parts.
        loss = loss_B.mean() * self.job.config.weight(slots, dist.get_world_size())
        self.engine.backward(loss)
        grad_norm = optimizer_step(self.engine)
        loss_B = loss_B.detach().cpu()
        self.micro_batches.append((batch, noise.sigmas_B, loss_B))
        if grad_norm is None:
            return
        if math.isfinite(grad_norm):
            self._count_step(grad_norm)
        else:
            self._skip(step)
        self.micro_batches.clear()

    def _count_step(self, grad_norm: float) -> None:
        """Add a step that was made to the sums."""
        self.average.update()
        self.state.num_skipped = 0
        self.sums.grad_norm += grad_norm
        for _, sigmas_B, loss_B in self.micro_batches:
            self._count(loss_B, sigmas_B)

    def _skip(self, step: int) -> None:
        """Keep the batch of a step that was left out; too many in a row end the run.

        Raises:
            TrainingDiverged: Naming the step.
        """
        self.state.num_skipped += 1
        skipped = storage.join_uri(self.job.output_uri, SKIPPED_FOLDER)
        record = [
            describe_batch(self.sampler.store, batch, sigmas_B, loss_B)
            for batch, sigmas_B, loss_B in self.micro_batches
        ]
        name = f"step-{step + 1:08d}-rank-{self.rank:05d}.json"
        data = (json.dumps(record, indent=1) + "\n").encode()
        write = partial(storage.write_bytes, storage.join_uri(skipped, name), data)
        self._patiently(write, f"writing {name}")
        problem = f"the gradient is no finite number at step {step + 1}; its batch is in {skipped}"
        self.recorder.message(f"left out: {problem}")
        if self.state.num_skipped > self.job.config.max_skipped_steps:
            raise TrainingDiverged(
                f"{problem}; {self.state.num_skipped} steps in a row: lower"
                " training.learning_rate or training.predictor.lora_scale"
            )

    def _count(self, loss_B: torch.Tensor, sigmas_B: torch.Tensor) -> None:
        high = sigmas_B > HIGH_SIGMA
        self.sums.loss += float(loss_B.sum())
        self.sums.num += len(loss_B)
        self.sums.high_loss += float(loss_B[high].sum())
        self.sums.num_high += int(high.sum())

    def _count_epochs(self) -> None:
        """Check that every style was trained on once an epoch; all ranks call it together.

        Raises:
            RuntimeError: If one was left out or came twice.
        """
        gathered: list[list[tuple[int, int, int]]] = [[] for _ in range(dist.get_world_size())]
        dist.all_gather_object(gathered, self.sums.styles)
        self.sums.styles = []
        num_styles = len(self.sampler.store.styles)
        for _, _, style in sorted(record for part in gathered for record in part):
            self.state.epoch_styles.append(style)
            if len(self.state.epoch_styles) < num_styles:
                continue
            if len(set(self.state.epoch_styles)) != num_styles:
                epoch = self.state.complete_epochs + 1
                raise RuntimeError(f"epoch {epoch} did not see each of {num_styles} styles once")
            self.state.complete_epochs += 1
            self.state.epoch_styles = []

    def _log(self, step: int) -> None:
        """Combine the ranks' sums and record them."""
        self._count_epochs()
        sums = self.sums
        values = [sums.loss, sums.num, sums.high_loss, sums.num_high]
        total = torch.tensor(values, dtype=torch.float64, device=self.objective.backbone.device)
        dist.all_reduce(total)
        loss, num, high_loss, num_high = total.tolist()
        elapsed_s = time.monotonic() - sums.started
        metrics = {
            "optim/lr": self.job.config.learning_rate_at(step - 1),
            "optim/grad_norm": sums.grad_norm / sums.num_steps,
            "time/step_s": elapsed_s / sums.num_steps,
            "data/epoch": step * self.job.config.styles_per_step / len(self.sampler.store.styles),
        }
        if num:
            metrics["train/loss"] = loss / num
        if num_high:
            metrics["train/loss_high_sigma"] = high_loss / num_high
        self.state.train_time_s += elapsed_s
        self._record(step, metrics)
        note = f"loss {loss / num:.4f}" if num else "all steps left out"
        if "val/loss_right" in self.state.best_metrics:
            note += f", best val {self.state.best_metrics['val/loss_right']:.4f}"
        self.recorder.progress("train", step, self.job.config.steps, note)
        self.sums = StepSums()

    def _record(self, step: int, metrics: dict[str, float]) -> None:
        self.state.history.append({"step": step, **metrics})
        self.recorder.metrics(metrics, step)

    # Validation

    def validate(self, step: int) -> None:
        """Measure the averaged weights, draw the grid, and keep the best weights."""
        metrics: dict[str, float] = {}
        if self.validator is not None:
            with self.average.applied():
                metrics = self.validator.losses(self.objective)
                grid = validation_grid(
                    self.objective, self.validator, self.job.config, draw=self.rank == 0
                )
            self._record(step, metrics)
            if grid is not None:
                self.recorder.image(grid, step)
        best = self.state.best_metrics.get("val/loss_right", math.inf)
        if metrics.get("val/loss_right", -math.inf) < best:
            self.state.best_step = step
            self.state.best_metrics = metrics
            self.best = self.average.whole_state()
        dist.barrier()
        self.sums.started = time.monotonic()

    # Checkpoints

    def checkpoint(self, step: int) -> None:
        """Take a checkpoint together; it is written and uploaded while the training goes on.

        Waits for the upload of the one before, so that no more than one is held in memory.
        """
        self.uploaded.wait(self.job.config.storage_patience_s)
        self.uploaded.clear()
        self._count_epochs()
        self.state.num_averaged = self.average.num_updates
        share = gather_state(self.engine, self.average)
        state = self.state.model_copy(deep=True) if self.rank == 0 else None
        best = self.best  # replaced, never changed
        rank, world_size = self.rank, dist.get_world_size()
        uri = storage.join_uri(self.job.attempt_uri, checkpoints.checkpoint_name(step))

        def upload(pointer: ray.train.Checkpoint, _: str) -> ray.train.Checkpoint:
            try:
                with checkpoints.scratch_folder() as folder:
                    write_weights(share, folder / checkpoints.share_name(rank, world_size))
                    if state is not None:
                        checkpoints.write_state(folder, state)
                        if best:
                            write_weights(best, folder / checkpoints.BEST)
                    checkpoints.write_manifest(folder, rank, world_size)
                    patience_s = self.job.config.storage_patience_s
                    checkpoints.upload(folder, uri, patience_s, self.recorder.message)
            finally:
                self.uploaded.set()
            return pointer

        ray.train.report(
            {"step": step, **self.state.best_metrics},
            checkpoint=checkpoints.ray_checkpoint(uri),
            checkpoint_dir_name=checkpoints.checkpoint_name(step),
            checkpoint_upload_mode=ray.train.CheckpointUploadMode.ASYNC,
            checkpoint_upload_fn=upload,
            delete_local_checkpoint_after_upload=False,
        )
        self.sums.started = time.monotonic()

    def restore(self) -> None:
        """Go on from the newest whole checkpoint of this attempt, if there is one.

        Any number of workers and ZeRO stage may have written it.

        Raises:
            InputError: If it cannot be read.
        """
        choice: list[str | None] = [None]
        if self.rank == 0:
            newest = partial(checkpoints.newest_whole, self.job.attempt_uri)
            choice = [self._patiently(newest, "listing checkpoints")]
        dist.broadcast_object_list(choice)
        if choice[0] is None:
            return
        with checkpoints.local_copy(choice[0]) as folder:
            state = checkpoints.read_state(folder)
            scatter_state(
                self.engine,
                self.average,
                checkpoints.tensor_reader(folder),
                state.num_averaged,
            )
            if (folder / checkpoints.BEST).is_file():
                self.best, _ = read_weights(folder / checkpoints.BEST, field="checkpoint")
        state.resumed_at.append(state.step)
        self.state = state
        self.recorder.message(f"resumed at step {state.step} with {dist.get_world_size()} workers")

    def finish(self) -> None:
        """Publish the best predictor, or the last one where nothing was validated."""
        weights = self.best or self.average.whole_state()
        if self.template is not None:
            publish = partial(publish_results, self.job, self.state, self.template, weights)
            self._patiently(publish, "publishing the predictor")

    def _patiently(self, action: Callable[[], _Result], what: str) -> _Result:
        patience_s = self.job.config.storage_patience_s
        return patiently(action, what, patience_s, self.recorder.message)
