"""How many bytes a computation holds, by running it on the meta device: no memory, no arithmetic.

Every storage that an operation makes is counted until it is freed, so that what autograd keeps for
the backward pass, gradients and temporary tensors are counted as they come and go.
"""

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter


@contextmanager
def traced_memory() -> Iterator["LiveBytes"]:
    """Count the bytes of tensors on the meta device that are made in the block.

    Attention is that of a fused kernel, which keeps no attention weights.
    """
    library = torch.library.Library("aten", "IMPL")
    library.impl("scaled_dot_product_attention", _fused_attention, "AutogradMeta")
    try:
        with LiveBytes() as live:
            yield live
    finally:
        library._destroy()


class LiveBytes(TorchDispatchMode):
    """Bytes of the tensors that were made under this mode and are still there.

    Attributes:
        now: Bytes at this moment.
        peak: The most so far.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = 0
        self.peak = 0
        self._sizes: dict[int, int] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run an operation and count what it makes."""
        for tensor in _tensors((args, kwargs)):
            self._add(tensor.untyped_storage(), 0)  # was there before the block
        result = func(*args, **(kwargs or {}))
        for tensor in _tensors(result):
            storage = tensor.untyped_storage()
            self._add(storage, storage.nbytes())
        return result

    def _add(self, storage: torch.UntypedStorage, size: int) -> None:
        key = storage._cdata
        if key in self._sizes:
            return
        self._sizes[key] = size
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._drop, key)

    def _drop(self, key: int) -> None:
        self.now -= self._sizes.pop(key)


def _tensors(values: Any) -> Iterator[torch.Tensor]:
    return (value for value in tree_iter(values) if isinstance(value, torch.Tensor))


class _FusedAttention(torch.autograd.Function):
    """The shapes of a fused attention kernel."""

    @staticmethod
    def forward(
        ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
    ) -> torch.Tensor:
        output = query.new_empty(*query.shape[:-1], value.shape[-1])
        log_sums = query.new_empty(query.shape[:-1], dtype=torch.float32)
        ctx.save_for_backward(query, key, value, output, log_sums)
        return output

    @staticmethod
    def backward(ctx: Any, *_: torch.Tensor) -> tuple[torch.Tensor, ...]:
        query, key, value, _, _ = ctx.saved_tensors
        return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)


def _fused_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_: Any, **__: Any
) -> torch.Tensor:
    attend: Any = _FusedAttention.apply
    output: torch.Tensor = attend(query, key, value)
    return output
