"""DeepSpeed's configuration, derived from ours, and the engine."""

import math
from typing import Any

import torch
from torch import nn

from jobs.training.config import TrainingConfig

BUCKET_NUMBERS = 200_000_000
"""Gradients that are reduced at once; on a GPU ZeRO holds two buffers of that size."""
_NEVER = 1_000_000_000  # steps between DeepSpeed's own log lines


def deepspeed_config(config: TrainingConfig, device: str) -> dict[str, Any]:
    """DeepSpeed's dictionary."""
    zero: dict[str, Any] = {
        "stage": config.zero_stage,
        "overlap_comm": device != "cpu",
        "contiguous_gradients": True,
        "reduce_bucket_size": BUCKET_NUMBERS,
    }
    if config.offload_optimizer:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": device != "cpu"}
    return {
        "train_micro_batch_size_per_gpu": 1,  # read by DeepSpeed's own speed figures alone
        "gradient_accumulation_steps": config.gradient_accumulation_steps,
        "gradient_clipping": config.grad_clip,
        "steps_per_print": _NEVER,
        "bf16": {"enabled": config.precision == "bf16"},
        "zero_optimization": zero,
        "zero_force_ds_cpu_optimizer": False,  # DeepSpeed's own would be compiled
        "optimizer": {
            "type": "AdamW",
            "params": {
                "lr": config.learning_rate_at(0),
                "betas": list(config.adam_betas),
                "weight_decay": config.weight_decay,
                # DeepSpeed's own Adam would be compiled on the first run.
                "torch_adam": True,
            },
        },
    }


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Trainable parameters with and without weight decay; empty groups are left out.

    Vectors (biases, norms) and the learned queries are not decayed.
    """
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            bare = parameter.ndim < 2 or "queries" in name.split(".")
            (free if bare else decayed).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": free, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def create_engine(module: nn.Module, config: TrainingConfig, device: str) -> Any:
    """Wrap ``module`` into a DeepSpeed engine over the process group that is there.

    On the CPU, gloo does the collectives: DeepSpeed's shared-memory ones need a compiler and most
    of a minute on the first run, for a gain that a few workers do not have.
    """
    import deepspeed

    if device == "cpu":
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    engine, *_ = deepspeed.initialize(
        model=module,
        model_parameters=parameter_groups(module, config.weight_decay),
        config=deepspeed_config(config, device),
    )
    return engine


def set_learning_rate(engine: Any, learning_rate: float) -> None:
    """Set the rate of the next optimizer step in all parameter groups."""
    for group in engine.optimizer.param_groups:
        group["lr"] = learning_rate


def optimizer_step(engine: Any) -> float | None:
    """Step the optimizer where an accumulation ends; return the gradient norm before clipping.

    None inside an accumulation. Of a norm that is no finite number nothing is learnt: ZeRO leaves
    out the step. Without it, DeepSpeed neither does, nor keeps the norm.
    """
    if not engine.is_gradient_accumulation_boundary():
        engine.step()
        return None
    gradients = []
    if engine.zero_optimization_stage() == 0:
        parameters = engine.module.parameters()
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    own_norm = float(torch.nn.utils.get_total_norm(gradients)) if gradients else None
    if own_norm is not None and not math.isfinite(own_norm):
        engine.zero_grad()
        engine.micro_steps += 1  # by which it knows where an accumulation ends
        return own_norm
    engine.step()
    norm = engine.get_global_grad_norm()
    return own_norm if norm is None else float(norm)
