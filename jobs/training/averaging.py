"""Exponential moving average of the trained weights."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist


class WeightAverage:
    """Averages of the trainable parameters, of the float32 copies that the optimizer steps.

    Weights in bf16 would not do: small steps are lost in their rounding. Every rank averages the
    part of each parameter that its optimizer holds: a shard under ZeRO-3, a piece or nothing under
    ZeRO-1 and -2, all of it without.

    Args:
        engine: DeepSpeed engine; the trainable parameters of its module are averaged.
        decay: Weight of the old average in each update. It starts lower, so that the first
            steps' weights are soon forgotten.

    Attributes:
        parameters: The trainable parameters by name.
        num_updates: Updates so far.
    """

    def __init__(self, engine: Any, decay: float) -> None:
        self.decay = decay
        self._engine = engine
        self.num_updates = 0
        self.parameters: dict[str, Any] = {
            name: parameter
            for name, parameter in engine.module.named_parameters()
            if parameter.requires_grad
        }
        self._shadow = {name: _master(p).clone() for name, p in self.parameters.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Move the average towards the parameters' present values."""
        self.num_updates += 1
        decay = min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
        shadow = list(self._shadow.values())
        current = [_master(parameter) for parameter in self.parameters.values()]
        torch._foreach_lerp_(shadow, current, 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Put the averages into the module for the block, then the trained values back.

        All ranks do it together.
        """
        trained = {name: _local(p).detach().clone() for name, p in self.parameters.items()}
        self._write(self._local_average)
        try:
            yield
        finally:
            self._write(trained.__getitem__)

    @torch.no_grad()
    def _write(self, value: Callable[[str], torch.Tensor]) -> None:
        _forget_gathered(self._engine, self.parameters)
        for name, parameter in self.parameters.items():
            _local(parameter).copy_(value(name))

    def _local_average(self, name: str) -> torch.Tensor:
        """What this rank's module takes: the shard under ZeRO-3, else the whole."""
        sharded = hasattr(self.parameters[name], "ds_tensor")
        return self._shadow[name] if sharded else self.whole(name)

    def whole(self, name: str) -> torch.Tensor:
        """Return the average of one parameter; all ranks call it together."""
        parameter, shadow = self.parameters[name], self._shadow[name]
        if hasattr(parameter, "ds_tensor"):
            shards = [torch.empty_like(shadow) for _ in range(dist.get_world_size())]
            dist.all_gather(shards, shadow)
            return torch.cat(shards)[: parameter.ds_numel].view(parameter.ds_shape)
        if hasattr(parameter, "_hp_mapping"):
            whole = torch.zeros(parameter.shape, dtype=shadow.dtype, device=shadow.device)
            optimizer_part(parameter, whole).copy_(shadow)
            dist.all_reduce(whole)
            return whole
        return shadow

    def whole_state(self) -> dict[str, torch.Tensor]:
        """Return all averages by name on the CPU; all ranks call it together.

        Rank 0 gets them, the others an empty dictionary.
        """
        state = {}
        for name in self.parameters:
            whole = self.whole(name)
            if dist.get_rank() == 0:
                state[name] = whole.to("cpu", copy=True)
        return state

    def load(self, state: Mapping[str, torch.Tensor], num_updates: int) -> None:
        """Go on from averages that `whole_state` gave."""
        self.num_updates = num_updates
        for name, shadow in self._shadow.items():
            shadow.copy_(optimizer_part(self.parameters[name], state[name]))


@torch.no_grad()
def write_local(
    engine: Any, parameters: Mapping[str, Any], values: Mapping[str, torch.Tensor]
) -> None:
    """Set parameters, sharded or not, to whole values."""
    _forget_gathered(engine, parameters)
    for name, parameter in parameters.items():
        _local(parameter).copy_(local_part(parameter, values[name]))


def local_part(parameter: Any, whole: torch.Tensor) -> torch.Tensor:
    """This rank's part of a parameter's whole value: the zero-padded shard under ZeRO-3."""
    if not hasattr(parameter, "ds_tensor"):
        return whole
    size = parameter.ds_tensor.numel()
    first = dist.get_rank() * size
    shard = whole.flatten()[first : first + size]
    return torch.nn.functional.pad(shard, (0, size - len(shard)))


def optimizer_part(parameter: Any, whole: torch.Tensor) -> torch.Tensor:
    """The part of a parameter's whole value that this rank's optimizer holds."""
    if hasattr(parameter, "ds_tensor") or not hasattr(parameter, "_hp_mapping"):
        return local_part(parameter, whole)
    flat, piece = whole.view(-1), parameter._hp_mapping
    if piece is None:  # other ranks hold all of it
        return flat[:0]
    return flat.narrow(0, piece.lp_fragment_address.start, piece.lp_fragment_address.numel)


def _forget_gathered(engine: Any, parameters: Mapping[str, Any]) -> None:
    """Drop gathered copies of sharded parameters, which would hide new shards."""
    if any(hasattr(parameter, "ds_tensor") for parameter in parameters.values()):
        engine.empty_partition_cache()


def _local(parameter: Any) -> torch.Tensor:
    """This rank's values: the shard under ZeRO-3, else the whole parameter."""
    shard: torch.Tensor = parameter.ds_tensor if hasattr(parameter, "ds_tensor") else parameter
    return shard


def _master(parameter: Any) -> torch.Tensor:
    """The values that this rank's optimizer steps, float32 and where the module is."""
    from deepspeed.utils import safe_get_local_fp32_param

    if hasattr(parameter, "ds_tensor"):
        master = safe_get_local_fp32_param(parameter)
    elif hasattr(parameter, "_hp_mapping"):
        piece = parameter._hp_mapping
        master = parameter.flatten()[:0] if piece is None else piece.hp_fragment
    else:
        master = parameter
    values: torch.Tensor = master.detach().to(_local(parameter).device, torch.float32)
    return values
