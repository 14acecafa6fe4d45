"""Taking checkpoints beside the training, and going on from one; all ranks do both together."""

import threading
import weakref
from functools import partial
from typing import Any

import ray.train
import torch
import torch.distributed as dist

from i2l_model.weights import read_weights
from jobs import storage
from jobs.training import checkpoints
from jobs.training.attempts import newest_whole
from jobs.training.averaging import WeightAverage
from jobs.training.checkpoints import TrainerState
from jobs.training.job import TrainingJob
from jobs.training.patience import Patience, Report
from jobs.training.trained_state import gather_state, scatter_state

Weights = dict[str, torch.Tensor]


class Checkpointer:
    """Writes and reads this rank's part of the checkpoints of an attempt.

    Args:
        job: The job.
        engine: DeepSpeed engine.
        average: Averaged weights.
        report: Told what people should know.
    """

    def __init__(
        self, job: TrainingJob, engine: Any, average: WeightAverage, report: Report
    ) -> None:
        self._job = job
        self._engine = engine
        self._average = average
        self._report = report
        self._patience = Patience(job.config.storage_patience_s, report)
        self._uploaded = threading.Event()
        self._uploaded.set()

    def take(self, state: TrainerState, best: Weights) -> None:
        """Copy the state to the CPU; it is written and uploaded while the training goes on.

        Waits for the upload of the one before, so that no more than one is held in memory.

        Args:
            state: Rank 0's is kept.
            best: The best averaged weights, which rank 0 has; replaced by the training, never
                changed.
        """
        self._uploaded.wait(self._job.config.storage_patience_s)
        state.num_averaged = self._average.num_updates
        share = gather_state(self._engine, self._average)
        kept = state.model_copy(deep=True) if dist.get_rank() == 0 else None
        name = checkpoints.checkpoint_name(state.step)
        uri = storage.join_uri(self._job.attempt_uri, name)
        self._uploaded = uploaded = threading.Event()

        def upload(pointer: ray.train.Checkpoint, _: str) -> ray.train.Checkpoint:
            try:
                self._write(uri, share, kept, best)
            finally:
                uploaded.set()
            return pointer

        weakref.finalize(upload, uploaded.set)  # Ray may skip a report, and drops it uncalled
        ray.train.report(
            {"step": state.step, **state.best_metrics},
            checkpoint=ray_checkpoint(uri),
            checkpoint_dir_name=name,
            checkpoint_upload_mode=ray.train.CheckpointUploadMode.ASYNC,
            checkpoint_upload_fn=upload,
            delete_local_checkpoint_after_upload=False,
        )

    def _write(self, uri: str, share: Weights, state: TrainerState | None, best: Weights) -> None:
        rank, world_size = dist.get_rank(), dist.get_world_size()
        with checkpoints.scratch_folder() as folder:
            checkpoints.write_tensors(share, folder / checkpoints.share_name(rank, world_size))
            if state is not None:
                checkpoints.write_state(folder, state)
                if best:
                    checkpoints.write_tensors(best, folder / checkpoints.BEST)
            checkpoints.write_manifest(folder, rank, world_size)
            patience_s = self._job.config.storage_patience_s
            checkpoints.upload(folder, uri, patience_s, self._report)

    def restore(self) -> tuple[TrainerState, Weights] | None:
        """Load the newest whole checkpoint of this attempt, if there is one.

        Any number of workers and ZeRO stage may have written it.

        Returns:
            The state and, on rank 0, the best averaged weights so far.

        Raises:
            InputError: If it cannot be read.
        """
        uri = self._newest()
        if uri is None:
            return None
        best: Weights = {}
        with checkpoints.local_copy(uri) as folder:
            state = checkpoints.read_state(folder)
            read = checkpoints.tensor_reader(folder)
            scatter_state(self._engine, self._average, read, state.num_averaged)
            if dist.get_rank() == 0 and (folder / checkpoints.BEST).is_file():
                best, _ = read_weights(folder / checkpoints.BEST, field="checkpoint")
        state.resumed_at.append(state.step)
        self._report(f"resumed at step {state.step} with {dist.get_world_size()} workers")
        return state, best

    def _newest(self) -> str | None:
        """Rank 0's choice, so that all ranks read the same one."""
        choice: list[str | None] = [None]
        if dist.get_rank() == 0:
            find = partial(newest_whole, self._job.attempt_uri)
            choice = [self._patience(find, "listing checkpoints")]
        dist.broadcast_object_list(choice)
        return choice[0]


def ray_checkpoint(uri: str) -> ray.train.Checkpoint:
    """Return what Ray Train knows a checkpoint by, of the filesystem that its run is on."""
    filesystem = ray.train.get_context().get_storage().storage_filesystem
    path = uri.removeprefix("s3://") if storage.is_s3(uri) else str(storage.local_path(uri))
    return ray.train.Checkpoint(path, filesystem)
