"""Proof that every epoch saw each style once, on whatever workers."""

import torch.distributed as dist

from jobs.training.checkpoints import TrainerState

StyleRecord = tuple[int, int, int]
"""Step, slot and style that this rank has trained on."""


def count_epochs(records: list[StyleRecord], state: TrainerState, num_styles: int) -> None:
    """Add what all ranks have trained on to the state; all call it together.

    Args:
        records: This rank's, since the last call.
        state: Counts the complete epochs.
        num_styles: Styles of an epoch.

    Raises:
        RuntimeError: If a style was left out of an epoch or came twice.
    """
    gathered: list[list[StyleRecord]] = [[] for _ in range(dist.get_world_size())]
    dist.all_gather_object(gathered, records)
    for _, _, style in sorted(record for part in gathered for record in part):
        state.epoch_styles.append(style)
        if len(state.epoch_styles) < num_styles:
            continue
        if len(set(state.epoch_styles)) != num_styles:
            epoch = state.complete_epochs + 1
            raise RuntimeError(f"epoch {epoch} did not see each of {num_styles} styles once")
        state.complete_epochs += 1
        state.epoch_styles = []
