"""The memory that a worker has, and the refusal of a training that does not fit it."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import torch

from i2l_model.errors import InputError
from jobs.training.config import TrainingConfig
from jobs.training.memory import MemoryEstimate, estimate_memory

logger = logging.getLogger(__name__)

_GIB = 2**30
_CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def check_memory(config: TrainingConfig, prompt: str | None) -> MemoryEstimate | None:
    """Estimate a worker's memory and compare it with what it has.

    Args:
        config: The training.
        prompt: The longest prompt of its pairs; None takes one of usual length.

    Returns:
        The estimate; None where the sizes of backbone or encoder are not found here, with a
        warning.

    Raises:
        InputError: If the training cannot fit.
    """
    device = expected_device(config)
    try:
        estimate = estimate_memory(config, device, prompt)
    except InputError as error:
        if error.field.startswith("training"):
            raise
        logger.warning("no estimate of the memory: %s", error)
        return None
    limit = worker_bytes(config, device)
    if limit is not None and estimate.total > limit:
        problem = (
            f"is less than the {estimate.total / _GIB:.1f} GiB that a worker needs at its peak,"
            f" the {estimate.greatest_phase}"
        )
        field, value = "training.memory_gib", f"{limit / _GIB:.1f}"
        raise InputError(field, value, problem, "; or ".join(_fixes(config, estimate)))
    return estimate


def expected_device(config: TrainingConfig) -> str:
    """The device that the workers will have, as far as the driver sees."""
    if config.device != "auto":
        return config.device
    return "cuda" if torch.cuda.device_count() >= config.num_workers else "cpu"


def worker_bytes(config: TrainingConfig, device: str) -> int | None:
    """Memory of one worker in bytes; None where it is not known.

    On a GPU all of it; on a CPU an equal share of this machine's, or of the container's. On a
    cluster, whose machines the driver does not see, only ``memory_gib`` says it.
    """
    if config.memory_gib is not None:
        return int(config.memory_gib * _GIB)
    if os.environ.get("RAY_ADDRESS"):
        return None
    if device == "cuda":
        if not torch.cuda.is_available():
            return None
        return int(torch.cuda.get_device_properties(0).total_memory)
    return machine_bytes() // config.num_workers


def machine_bytes() -> int:
    """Memory of this machine, or of the container where that has less."""
    sizes = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in map(Path, _CGROUP_LIMITS):
        if path.is_file() and (text := path.read_text().strip()).isdigit():
            sizes.append(int(text))
    return min(sizes)


def _fixes(config: TrainingConfig, estimate: MemoryEstimate) -> Iterator[str]:
    """What would lower the estimate, the most telling first."""
    if estimate.greatest_phase == "encoding" and not config.cache:
        yield "set cache"
    if estimate.greatest_phase == "training pass":
        if not config.gradient_checkpointing:
            yield "set gradient_checkpointing"
        if config.micro_styles > 1:
            yield (
                f"raise gradient_accumulation_steps ({config.gradient_accumulation_steps})"
                f" or lower styles_per_step ({config.styles_per_step})"
            )
        elif config.targets_per_style > 1:
            yield f"lower targets_per_style ({config.targets_per_style})"
    if config.precision == "fp32":
        yield "set precision to bf16"
    if config.zero_stage < 3 and config.num_workers > 1:
        yield f"raise zero_stage ({config.zero_stage})"
    if config.backbone_shards == 1 and config.num_workers > 1:
        yield "raise backbone_shards (1)"
    if not config.offload_optimizer and config.zero_stage and estimate.device == "cuda":
        yield "set offload_optimizer"
    yield "give workers more memory"
