"""What a training carries in tensors: weights, Adam's moments and averages by parameter name.

The tensors are whole, whatever ZeRO stage and number of workers they come from or go to. DeepSpeed
keeps them cut to pieces, in pickles that only as many workers can read.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.distributed as dist

from jobs.training.averaging import WeightAverage, local_part, write_local

_MOMENTS = ("exp_avg", "exp_avg_sq")
_WEIGHT, _AVERAGE = "weight", "average"


def gather_state(engine: Any, average: WeightAverage) -> dict[str, torch.Tensor]:
    """Return this rank's share of the state, float32 on the CPU; all ranks call it together.

    The ranks' shares are disjoint, about equal in bytes, and together the whole.

    Args:
        engine: DeepSpeed engine after its first step.
        average: The averaged weights.

    Returns:
        Tensors by ``kind/parameter``, kinds being weight, exp_avg, exp_avg_sq and average.
    """
    _link_moments(engine)
    share: dict[str, torch.Tensor] = {}
    loads = [0] * dist.get_world_size()
    for name, parameter in average.parameters.items():
        owner = loads.index(min(loads))
        loads[owner] += getattr(parameter, "ds_numel", parameter.numel())
        for kind, whole in _whole_tensors(engine, average, name, parameter):
            if owner == dist.get_rank():
                share[f"{kind}/{name}"] = whole.to("cpu", torch.float32, copy=True)
    return share


def scatter_state(
    engine: Any,
    average: WeightAverage,
    read: Callable[[str], torch.Tensor],
    num_updates: int,
) -> None:
    """Put a state into an engine that has not stepped; the opposite of `gather_state`.

    Args:
        engine: DeepSpeed engine of any ZeRO stage and number of workers.
        average: The averaged weights.
        read: Gives the tensor of a name.
        num_updates: Optimizer steps that Adam has made.
    """
    _create_moments(engine, num_updates)
    values = {
        name: read(f"{_WEIGHT}/{name}").reshape(_shape(p)) for name, p in average.parameters.items()
    }
    write_local(engine, average.parameters, values)
    for name, parameter in average.parameters.items():
        _write_master(engine, parameter, values.pop(name), None)
        for moment in _MOMENTS:
            _write_master(engine, parameter, read(f"{moment}/{name}"), moment)
    average.load({name: read(f"{_AVERAGE}/{name}") for name in average.parameters}, num_updates)


def _whole_tensors(
    engine: Any, average: WeightAverage, name: str, parameter: Any
) -> Iterator[tuple[str, torch.Tensor]]:
    from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

    weight = safe_get_full_fp32_param(parameter)
    yield _WEIGHT, parameter.detach() if weight is None else weight
    for moment in _MOMENTS:
        state = safe_get_full_optimizer_state(parameter, moment)
        yield moment, engine.optimizer.state[parameter][moment] if state is None else state
    yield _AVERAGE, average.whole(name)


def _write_master(engine: Any, parameter: Any, whole: torch.Tensor, moment: str | None) -> None:
    """Write the float32 weight (``moment`` None) or a moment of it."""
    from deepspeed.utils import (
        safe_set_full_fp32_param,
        safe_set_full_optimizer_state,
        safe_set_local_fp32_param,
        safe_set_local_optimizer_state,
    )

    if hasattr(parameter, "ds_tensor"):  # DeepSpeed's whole setters do not pad the last shard
        shard = local_part(parameter, whole)
        if moment is None:
            safe_set_local_fp32_param(parameter, shard)
        else:
            safe_set_local_optimizer_state(parameter, shard, moment)
    elif hasattr(parameter, "_hp_mapping"):
        if moment is None:
            safe_set_full_fp32_param(parameter, whole)
        else:
            safe_set_full_optimizer_state(parameter, whole, moment)
    elif moment is not None:
        engine.optimizer.state[parameter][moment].copy_(whole)


def _create_moments(engine: Any, num_updates: int) -> None:
    """Give Adam its moments, which it makes only at its first step."""
    optimizer = engine.optimizer
    adam = getattr(optimizer, "optimizer", optimizer)
    flat = getattr(optimizer, "fp32_partitioned_groups_flat", None)  # ZeRO-3
    if flat is None:
        flat = [tensor for group in adam.param_groups for tensor in group["params"]]
    for tensor in flat:
        adam.state[tensor] = {
            "step": torch.tensor(float(num_updates)),
            **{moment: torch.zeros_like(tensor.detach()) for moment in _MOMENTS},
        }
    _link_moments(engine)


def _link_moments(engine: Any) -> None:
    """Let every parameter know its moments.

    ZeRO-1 and -2 do it once, after the step of the first parameter group, when those of the other
    groups do not exist yet.
    """
    optimizer = engine.optimizer
    if hasattr(optimizer, "_hp_optimizer_states_linked"):
        optimizer._hp_optimizer_states_linked = False
        optimizer._lazy_init_hp_params_optimizer_state()


def _shape(parameter: Any) -> torch.Size:
    shape: torch.Size = getattr(parameter, "ds_shape", parameter.shape)
    return shape
