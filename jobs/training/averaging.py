"""Exponential moving average of the trained weights."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch


class WeightAverage:
    """Averaged copies of the trainable parameters, float32.

    Under ZeRO-3 every rank averages its own shard of each parameter; otherwise all ranks hold the
    same whole copies.

    Args:
        engine: DeepSpeed engine; the trainable parameters of its module are averaged.
        decay: Weight of the old average in each update. It starts lower, so that the first
            steps' weights are soon forgotten.
    """

    def __init__(self, engine: Any, decay: float) -> None:
        self.decay = decay
        self._engine = engine
        self.num_updates = 0
        self._parameters = {
            name: parameter
            for name, parameter in engine.module.named_parameters()
            if parameter.requires_grad
        }
        self._shadow = {
            name: _local(parameter).detach().float().clone()
            for name, parameter in self._parameters.items()
        }

    @torch.no_grad()
    def update(self) -> None:
        """Move the average towards the parameters' present values."""
        self.num_updates += 1
        decay = min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
        shadow = list(self._shadow.values())
        current = [_local(parameter).detach().float() for parameter in self._parameters.values()]
        torch._foreach_lerp_(shadow, current, 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Put the averages into the module for the block, then the trained values back."""
        trained = {name: _local(p).detach().clone() for name, p in self._parameters.items()}
        self._write(self._shadow)
        try:
            yield
        finally:
            self._write(trained)

    @torch.no_grad()
    def _write(self, values: Mapping[str, torch.Tensor]) -> None:
        if self._sharded:  # parameters that are still gathered would hide the new shards
            self._engine.empty_partition_cache()
        for name, parameter in self._parameters.items():
            _local(parameter).copy_(values[name])

    @property
    def _sharded(self) -> bool:
        return any(hasattr(parameter, "ds_tensor") for parameter in self._parameters.values())

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The averages by parameter name, this rank's part."""
        return dict(self._shadow)

    def load_state_dict(self, state: Mapping[str, torch.Tensor], num_updates: int) -> None:
        """Go on from saved averages."""
        self.num_updates = num_updates
        for name, value in self._shadow.items():
            value.copy_(state[name])

    def full_state(self) -> dict[str, torch.Tensor]:
        """Whole averages by parameter name on the CPU, float32; all ranks call it together."""
        if not self._sharded:
            return {name: value.detach().cpu().clone() for name, value in self._shadow.items()}
        import deepspeed

        state: dict[str, torch.Tensor] = {}
        with self.applied(), torch.no_grad():
            for name, parameter in self._parameters.items():
                with deepspeed.zero.GatheredParameters([parameter]):
                    state[name] = parameter.detach().float().cpu().clone()
        return state


def _local(parameter: Any) -> torch.Tensor:
    """This rank's values: the shard under ZeRO-3, else the whole parameter."""
    shard: torch.Tensor = parameter.ds_tensor if hasattr(parameter, "ds_tensor") else parameter
    return shard
