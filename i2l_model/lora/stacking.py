"""LoRAs of layers that another program keeps as one linear, stacked along its rows."""

# R rank, I in, O out

from collections.abc import Sequence

import torch

from i2l_model.errors import InputError

Pair = tuple[torch.Tensor, torch.Tensor]
"""lora_A (R, I) and lora_B (O, R)."""


def stack_layers(pairs: Sequence[Pair | None]) -> Pair:
    """Return the LoRA of the stacked layers, exactly; its rank is the sum of theirs.

    Args:
        pairs: Of layers of one shape in order; None for a layer that has no LoRA.
    """
    present = [pair for pair in pairs if pair is not None]
    if len(pairs) == 1:
        return present[0]
    out_features = present[0][1].shape[0]
    blocks = [
        pair[1] if pair is not None else present[0][1].new_zeros(out_features, 0) for pair in pairs
    ]
    return torch.cat([A_RI for A_RI, _ in present]), torch.block_diag(*blocks)


def split_layers(pair: Pair, num_layers: int, name: str) -> list[Pair]:
    """Return the LoRA of each of the stacked layers; what `stack_layers` added is left out again.

    Raises:
        InputError: If the rows cannot be divided.
    """
    A_RI, B_OR = pair
    if num_layers == 1:
        return [pair]
    if B_OR.shape[0] % num_layers:
        problem = f"has {B_OR.shape[0]} rows, which are no {num_layers} layers of one size"
        raise InputError("lora", name, problem, "export it again")
    pairs = []
    for rows in B_OR.chunk(num_layers):
        used = rows.ne(0).any(dim=0)
        if not used.any():  # no change: one rank says so
            used[0] = True
        pairs.append((A_RI[used], rows[:, used]))
    return pairs
