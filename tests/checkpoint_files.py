"""A checkpoint's files as several ranks write them, without a training."""

from pathlib import Path

from jobs.training import checkpoints
from jobs.training.checkpoints import TrainerState, share_name


def save_checkpoint(experiment: Path, step: int, ranks: int = 2) -> Path:
    folder = experiment / checkpoints.checkpoint_name(step)
    for rank in range(ranks):
        with checkpoints.scratch_folder() as scratch:
            (scratch / share_name(rank, ranks)).write_bytes(b"w" * 100)
            if rank == 0:
                state = TrainerState(step=step, world_size=ranks, zero_stage=2)
                checkpoints.write_state(scratch, state)
            checkpoints.write_manifest(scratch, rank, ranks)
            checkpoints.upload(scratch, str(folder), 0, print)
    return folder
