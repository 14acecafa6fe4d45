"""Applying a different LoRA to every sample of a batch, by forward hooks on the linear layers.

The backbone's weights stay as they are: a hook adds ``lora_B @ (lora_A @ x)`` to a layer's output.
Gradients reach the factors. One thread a process may inject at a time.
"""

# B batch = N LoRAs * K samples, T tokens, I in, O out, R rank

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from torch.utils.hooks import RemovableHandle

from i2l_model.errors import InputError
from i2l_model.lora.factors import LoraFactors, LoraTarget

_active: list[_Injection] = []


@contextmanager
def inject_lora(module: nn.Module, factors: LoraFactors) -> Iterator[None]:
    """Add N LoRAs to a module while the context lasts: row b of the batch uses LoRA b // K.

    Injections may be nested; their updates add up. Leaving the context, also through an exception,
    leaves nothing behind.

    Args:
        module: The transformer. Its target layers see (B, T, I) inputs with B = N * K.
        factors: N LoRAs, on the module's device; any floating dtype.

    Raises:
        InputError: If a target is no linear layer of the module or has another shape, and inside
            the context if a batch is no multiple of N.
    """
    injection = _Injection(module, factors)
    _active.append(injection)
    try:
        injection.attach()
        yield
    finally:
        injection.release()
        _active.remove(injection)


def checkpoint_with_lora(module: Callable[..., Any], *args: Any) -> Any:
    """Run a block under gradient checkpointing such that its recomputation sees the same LoRAs.

    The recomputation happens in the backward pass, when the context of `inject_lora` has ended;
    without its hooks, the gradients would be those of the bare backbone.
    """
    recompute_context = partial(_only, tuple(_active))

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), recompute_context()

    return checkpoint(module, *args, use_reentrant=False, context_fn=contexts)


def check_fits(module: nn.Module, lora: LoraFactors) -> None:
    """Raise InputError if `inject_lora` would refuse the LoRA; the module stays as it is."""
    _Injection(module, lora)


def _check_hooks_are_seen(module: nn.Module) -> None:
    """Raise InputError for a compiled module that would ignore hooks set after it was compiled."""
    compiled = any(part._compiled_call_impl is not None for part in module.modules())
    if compiled and torch._dynamo.config.skip_nnmodule_hook_guards:
        fix = "set torch._dynamo.config.skip_nnmodule_hook_guards = False before compiling it"
        raise InputError("backbone", type(module).__name__, "is compiled and ignores LoRAs", fix)


class _Injection:
    """The hooks of one `inject_lora` context."""

    def __init__(self, module: nn.Module, factors: LoraFactors) -> None:
        _check_hooks_are_seen(module)
        self.factors = factors
        self.linears = {target.name: _linear(module, target) for target in factors.targets}
        self._handles: list[RemovableHandle] = []

    @property
    def attached(self) -> bool:
        return bool(self._handles)

    def attach(self) -> None:
        if self.attached:
            return
        for name, linear in self.linears.items():
            hook = partial(_add_lora, name, self.factors.lora_A[name], self.factors.lora_B[name])
            self._handles.append(linear.register_forward_hook(hook))

    def release(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()


@contextmanager
def _only(wanted: tuple[_Injection, ...]) -> Iterator[None]:
    """Hold exactly the hooks of ``wanted``, whichever are held now, then restore those."""
    held = [injection for injection in _active if injection.attached]
    _swap(held, wanted)
    try:
        yield
    finally:
        _swap(wanted, held)


def _swap(old: Sequence[_Injection], new: Sequence[_Injection]) -> None:
    for injection in old:
        if injection not in new:
            injection.release()
    for injection in new:
        injection.attach()


def _add_lora(
    name: str,
    A_NRI: torch.Tensor,
    B_NOR: torch.Tensor,
    _module: nn.Module,
    inputs: tuple[torch.Tensor, ...],
    output: torch.Tensor,
) -> torch.Tensor:
    x_BTI = inputs[0]
    num_loras = A_NRI.shape[0]
    if x_BTI.ndim != 3 or x_BTI.shape[0] % num_loras:
        raise InputError(
            "batch",
            tuple(x_BTI.shape),
            f"must be (B, T, I) with B a multiple of the {num_loras} LoRAs at '{name}'",
            "give every LoRA the same number of samples",
        )
    x = x_BTI.reshape(num_loras, -1, x_BTI.shape[-1])
    update = torch.bmm(torch.bmm(x, A_NRI.to(x.dtype).mT), B_NOR.to(x.dtype).mT)
    return output + update.view(output.shape).to(output.dtype)


def _linear(module: nn.Module, target: LoraTarget) -> nn.Module:
    """The layer of a target; where PEFT has put adapters around it, the whole of them."""
    fix = "use a LoRA made for this backbone"
    try:
        layer = module.get_submodule(target.name)
    except AttributeError as error:
        raise InputError("lora", target.name, "is no layer of this backbone", fix) from error
    linear = getattr(layer, "base_layer", layer)
    if not isinstance(linear, nn.Linear):
        raise InputError("lora", target.name, f"is a {type(linear).__name__}, not a Linear", fix)
    if (linear.in_features, linear.out_features) != (target.in_features, target.out_features):
        raise InputError(
            f"lora '{target.name}'",
            f"{target.in_features} -> {target.out_features}",
            f"does not fit the layer ({linear.in_features} -> {linear.out_features})",
            fix,
        )
    return layer
