"""LoRA factors: a batch of low-rank updates of one backbone."""

# N LoRAs, R rank, I in, O out

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from i2l_model.errors import InputError


@dataclass(frozen=True)
class LoraTarget:
    """A linear layer that a LoRA updates.

    Args:
        name: Dotted module path inside the backbone's transformer.
        in_features: Columns of its weight.
        out_features: Rows of its weight.
    """

    name: str
    in_features: int
    out_features: int


@dataclass(frozen=True, eq=False)
class LoraFactors:
    """N LoRAs over the same layers: ``delta = lora_B @ lora_A``, any scale already inside lora_B.

    Args:
        lora_A: Layer name to (N, R, I).
        lora_B: Layer name to (N, O, R). The rank may differ between layers.

    Raises:
        InputError: If a layer lacks a factor or the shapes do not fit together.
    """

    lora_A: dict[str, torch.Tensor]
    lora_B: dict[str, torch.Tensor]

    def __post_init__(self) -> None:
        if not self.lora_A or self.lora_A.keys() != self.lora_B.keys():
            only = sorted(self.lora_A.keys() ^ self.lora_B.keys())[:3]
            raise InputError("lora", only, "has no pair of factors", "give lora_A and lora_B")
        num_loras = next(iter(self.lora_A.values())).shape[0]
        for name, A_NRI in self.lora_A.items():
            B_NOR = self.lora_B[name]
            if A_NRI.ndim != 3 or B_NOR.ndim != 3:
                raise InputError(
                    f"lora '{name}'",
                    f"{tuple(A_NRI.shape)}, {tuple(B_NOR.shape)}",
                    "has factors without three axes",
                    "shape lora_A as (N, rank, in) and lora_B as (N, out, rank)",
                )
            if A_NRI.shape[0] != num_loras or B_NOR.shape[::2] != A_NRI.shape[:2]:
                raise InputError(
                    f"lora '{name}'",
                    f"{tuple(A_NRI.shape)}, {tuple(B_NOR.shape)}",
                    f"does not hold {num_loras} LoRAs of one rank",
                    "shape lora_A as (N, rank, in) and lora_B as (N, out, rank)",
                )

    @property
    def num_loras(self) -> int:
        """Number of LoRAs N."""
        return next(iter(self.lora_A.values())).shape[0]

    @property
    def rank(self) -> int:
        """Largest rank over the layers."""
        return max(A_NRI.shape[1] for A_NRI in self.lora_A.values())

    @property
    def targets(self) -> tuple[LoraTarget, ...]:
        """The layers, in order."""
        return tuple(
            LoraTarget(name, A_NRI.shape[2], self.lora_B[name].shape[1])
            for name, A_NRI in self.lora_A.items()
        )

    def delta(self, name: str) -> torch.Tensor:
        """Return the weight updates (N, O, I) of one layer."""
        return self.lora_B[name] @ self.lora_A[name]

    def scaled(self, scale: float) -> LoraFactors:
        """Return the LoRAs at ``scale`` times their strength."""
        return LoraFactors(
            dict(self.lora_A), {name: B_NOR * scale for name, B_NOR in self.lora_B.items()}
        )

    def select(self, index: Sequence[int] | torch.Tensor) -> LoraFactors:
        """Return the LoRAs at ``index``, in that order; repeats are allowed."""
        device = next(iter(self.lora_A.values())).device
        rows = torch.as_tensor(index, dtype=torch.long, device=device)
        return self._map(lambda factor: factor.index_select(0, rows))

    def to(
        self, device: str | torch.device | None = None, dtype: torch.dtype | None = None
    ) -> LoraFactors:
        """Return the LoRAs on a device and in a dtype; None leaves either as it is."""
        return self._map(lambda factor: factor.to(device=device, dtype=dtype))

    def detach(self) -> LoraFactors:
        """Return the LoRAs without gradients."""
        return self._map(torch.Tensor.detach)

    def zeros_like(self) -> LoraFactors:
        """Return as many LoRAs that change nothing."""
        return self._map(torch.zeros_like)

    @staticmethod
    def concat(parts: Sequence[LoraFactors]) -> LoraFactors:
        """Return all LoRAs of ``parts`` as one batch, in order.

        Raises:
            InputError: If the parts differ in layers, ranks or shapes.
        """
        if not parts:
            raise InputError("parts", "[]", "is empty", "give at least one LoraFactors")
        shapes = {_shapes(part) for part in parts}
        if len(shapes) > 1:
            raise InputError(
                "parts", len(parts), "differ in layers, ranks or shapes", "batch LoRAs of one kind"
            )
        names = parts[0].lora_A
        return LoraFactors(
            {name: torch.cat([part.lora_A[name] for part in parts]) for name in names},
            {name: torch.cat([part.lora_B[name] for part in parts]) for name in names},
        )

    def fuse(self, weights: Sequence[float]) -> LoraFactors:
        """Return one LoRA whose update is the weighted sum of the N updates.

        The sum is exact, as a concatenation along the rank, which grows to N times itself.

        Args:
            weights: One factor a LoRA.

        Raises:
            InputError: If the number of weights is not N.
        """
        parts = [self.select([index]) for index in range(self.num_loras)]
        return LoraFactors.weighted_sum(parts, weights)

    @staticmethod
    def weighted_sum(parts: Sequence[LoraFactors], weights: Sequence[float]) -> LoraFactors:
        """Return one LoRA whose update is the weighted sum of those of ``parts``, exactly.

        Args:
            parts: One LoRA each (N = 1); ranks and layers may differ.
            weights: One factor a part.

        Raises:
            InputError: If counts disagree, or a layer has different sizes.
        """
        if not parts or len(weights) != len(parts):
            problem = f"must be {len(parts)} numbers"
            raise InputError("weights", list(weights), problem, "give one for each LoRA")
        if any(part.num_loras != 1 for part in parts):
            raise InputError("parts", len(parts), "hold several LoRAs", "select one of each")
        lora_A: dict[str, torch.Tensor] = {}
        lora_B: dict[str, torch.Tensor] = {}
        for name in dict.fromkeys(name for part in parts for name in part.lora_A):
            owners = [(p, w) for p, w in zip(parts, weights, strict=True) if name in p.lora_A]
            if len({_sizes(part, name) for part, _ in owners}) > 1:
                problem = "has different sizes in the LoRAs"
                raise InputError("parts", name, problem, "fuse LoRAs of one backbone")
            lora_A[name] = torch.cat([part.lora_A[name] for part, _ in owners], dim=1)
            lora_B[name] = torch.cat([part.lora_B[name] * w for part, w in owners], dim=2)
        return LoraFactors(lora_A, lora_B)

    def reranked(self, rank: int) -> LoraFactors:
        """Return the closest LoRAs of at most ``rank``: a truncated SVD of every update.

        Exact where the update has no more than ``rank`` singular values above zero.

        Raises:
            InputError: If ``rank`` is below 1.
        """
        if rank < 1:
            raise InputError("rank", rank, "must be at least 1", "raise it")
        pairs = {
            name: _truncated(self.lora_A[name], self.lora_B[name], rank) for name in self.lora_A
        }
        return LoraFactors(
            {name: pair[0] for name, pair in pairs.items()},
            {name: pair[1] for name, pair in pairs.items()},
        )

    def check_finite(self, field: str = "lora") -> None:
        """Raise InputError if a factor holds NaN or infinity."""
        for name, factor in self._named_factors():
            if not torch.isfinite(factor).all():
                raise InputError(
                    field, name, "holds NaN or infinite values", "predict or train the LoRA again"
                )

    def _named_factors(self) -> Iterator[tuple[str, torch.Tensor]]:
        for name in self.lora_A:
            yield f"{name}.lora_A", self.lora_A[name]
            yield f"{name}.lora_B", self.lora_B[name]

    def _map(self, function: Callable[[torch.Tensor], torch.Tensor]) -> LoraFactors:
        return LoraFactors(
            {name: function(A_NRI) for name, A_NRI in self.lora_A.items()},
            {name: function(B_NOR) for name, B_NOR in self.lora_B.items()},
        )


def _sizes(factors: LoraFactors, name: str) -> tuple[int, int]:
    return factors.lora_A[name].shape[2], factors.lora_B[name].shape[1]


def _shapes(factors: LoraFactors) -> tuple[tuple[str, torch.Size, torch.Size], ...]:
    return tuple(
        (name, factors.lora_A[name].shape[1:], factors.lora_B[name].shape[1:])
        for name in sorted(factors.lora_A)
    )


def _truncated(
    A_NRI: torch.Tensor, B_NOR: torch.Tensor, rank: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """SVD of B @ A through the small R x R core; the singular values go half to each side."""
    rank = min(rank, A_NRI.shape[1], A_NRI.shape[2], B_NOR.shape[1])
    left_q, left_r = torch.linalg.qr(B_NOR.double())
    right_q, right_r = torch.linalg.qr(A_NRI.double().mT)
    U, S, Vh = torch.linalg.svd(left_r @ right_r.mT, full_matrices=False)
    root = S[:, None, :rank].sqrt()
    B = left_q @ U[..., :rank] * root
    A = root.mT * (Vh[:, :rank] @ right_q.mT)
    return A.to(A_NRI.dtype), B.to(B_NOR.dtype)
