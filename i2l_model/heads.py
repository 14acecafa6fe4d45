"""Compressed decoding heads: query outputs to LoRA factors, one grouped matmul a shape."""

# N LoRAs, G layers of a group, Q queries a head, D dim, R rank, F features (I in or O out)

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from i2l_model.lora.factors import LoraFactors, LoraTarget


@dataclass(frozen=True)
class HeadGroup:
    """All heads of one side whose factor has the same number of features."""

    side: str
    features: int
    names: tuple[str, ...]


def group_heads(targets: Sequence[LoraTarget]) -> tuple[HeadGroup, ...]:
    """Sort the heads of all layers into groups of equal shape: A by in, B by out features."""
    groups: dict[tuple[str, int], list[str]] = {}
    for target in targets:
        groups.setdefault(("A", target.in_features), []).append(target.name)
        groups.setdefault(("B", target.out_features), []).append(target.name)
    return tuple(HeadGroup(side, size, tuple(names)) for (side, size), names in groups.items())


class GroupedHead(nn.Module):
    """The heads ``dim -> c -> rows * features`` of G layers, as two batched matmuls, no bias.

    The B side starts at zero, so that an untrained predictor changes nothing.

    Args:
        group: The layers.
        dim: Features of a query output, of about unit size.
        compress_dim: c.
        num_queries: Queries a head, which share its weights.
        rows: Rows of the factor that each query emits.
    """

    def __init__(
        self, group: HeadGroup, dim: int, compress_dim: int, num_queries: int, rows: int
    ) -> None:
        super().__init__()
        self.group = group
        self.num_queries = num_queries
        num_layers, features = len(group.names), group.features
        self.down = nn.Parameter(torch.randn(num_layers, dim, compress_dim) / math.sqrt(dim))
        up = torch.zeros(num_layers, compress_dim, rows * features)
        if group.side == "A":
            up = torch.randn_like(up) / math.sqrt(compress_dim)
        self.up = nn.Parameter(up)

    @property
    def total_queries(self) -> int:
        """Queries of the whole group."""
        return len(self.group.names) * self.num_queries

    def forward(self, queries: torch.Tensor, scale: float) -> torch.Tensor:
        """Return ``scale`` times the factors' rows (G, N, R, F) of query outputs (N, G * Q, D)."""
        num_loras, _, dim = queries.shape
        num_layers = len(self.group.names)
        hidden = queries.view(num_loras, num_layers, self.num_queries, dim).transpose(0, 1)
        hidden = hidden.reshape(num_layers, num_loras * self.num_queries, dim)
        rows = torch.bmm(torch.bmm(hidden, self.down) * scale, self.up)
        return rows.view(num_layers, num_loras, -1, self.group.features)


class CompressedHeads(nn.Module):
    """All heads of a predictor.

    Args:
        targets: Layers of the backbone.
        dim: Features of a query output.
        compress_dim: Width c of the heads.
        rank: Rank R of the LoRA.
        queries_per_factor: Queries a layer and side; divides the rank.
    """

    def __init__(
        self,
        targets: Sequence[LoraTarget],
        *,
        dim: int,
        compress_dim: int,
        rank: int,
        queries_per_factor: int,
    ) -> None:
        super().__init__()
        self.names = tuple(target.name for target in targets)
        rows = rank // queries_per_factor
        self.groups = nn.ModuleList(
            GroupedHead(group, dim, compress_dim, queries_per_factor, rows)
            for group in group_heads(targets)
        )
        self.num_queries = sum(group.total_queries for group in self.in_order())

    def forward(self, queries: torch.Tensor, lora_scale: float) -> list[torch.Tensor]:
        """Decode query outputs (N, num_queries, D), ``lora_scale`` within lora_B.

        Returns:
            Rows of the factors, (G, N, R, F) of each group: one tensor for all layers of a shape.
        """
        heads = self.in_order()
        parts = torch.split(queries, [head.total_queries for head in heads], dim=1)
        return [
            head(part, lora_scale if head.group.side == "B" else 1 / math.sqrt(head.group.features))
            for head, part in zip(heads, parts, strict=True)  # A @ x has elements of x's size
        ]

    def factors(self, rows: Sequence[torch.Tensor]) -> LoraFactors:
        """Name the layers of what `forward` returns; the factors are views of it."""
        lora_A: dict[str, torch.Tensor] = dict.fromkeys(self.names, rows[0])
        lora_B = dict(lora_A)
        for head, rows_GNRF in zip(self.in_order(), rows, strict=True):
            if head.group.side == "A":
                lora_A.update(zip(head.group.names, rows_GNRF.unbind(0), strict=True))
            else:
                lora_B.update(zip(head.group.names, rows_GNRF.mT.unbind(0), strict=True))
        return LoraFactors(lora_A, lora_B)

    def in_order(self) -> list[GroupedHead]:
        """The heads of each group, in the order of the rows that `forward` returns."""
        return [head for head in self.groups if isinstance(head, GroupedHead)]
