"""Timing, peak memory and the machine's own rates, for benchmarks on the CPU or a GPU."""

import resource
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode


def device() -> str:
    """The GPU where torch sees one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def seconds(step: Callable[[], object], rounds: int = 5, repeats: int = 1) -> float:
    """Best of some rounds of ``repeats`` steps, after one round to warm up."""
    best = float("inf")
    for round_number in range(rounds + 1):
        _wait()
        start = time.perf_counter()
        for _ in range(repeats):
            step()
        _wait()
        if round_number:
            best = min(best, time.perf_counter() - start)
    return best


def peak_gib(step: Callable[[], object]) -> float:
    """Peak memory: of the step on a GPU; on the CPU of the whole process so far."""
    if device() == "cpu":
        step()
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    torch.cuda.reset_peak_memory_stats()
    step()
    return torch.cuda.max_memory_allocated() / 2**30


def flops(step: Callable[[], object]) -> int:
    """Floating-point operations of the matrix products and attention of a step."""
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()


@dataclass(frozen=True)
class Rates:
    """What this machine reaches: flop/s of a large matrix product, bytes/s of a copy."""

    flops: float
    bytes: float

    def floor(self, num_flops: int, num_bytes: int) -> str:
        """Say the least time that the arithmetic and the memory traffic need."""
        arithmetic, memory = num_flops / self.flops, num_bytes / self.bytes
        return (
            f"floors: {num_flops / 1e9:.2f} GFLOP {1e3 * arithmetic:.2f} ms, "
            f"{num_bytes / 1e6:.1f} MB {1e3 * memory:.2f} ms"
        )


def measure_rates(dtype: torch.dtype) -> Rates:
    """Measure both rates in this process."""
    side = 8192 if device() == "cuda" else 1024
    a = torch.randn(side, side, device=device(), dtype=dtype)
    source = torch.empty((1 << 30 if device() == "cuda" else 1 << 26), dtype=torch.uint8)
    source = source.to(device())
    target = torch.empty_like(source)
    gemm, copy = seconds(lambda: a @ a), seconds(lambda: target.copy_(source))
    return Rates(2 * side**3 / gemm, 2 * source.numel() / copy)


def _wait() -> None:
    if device() == "cuda":
        torch.cuda.synchronize()
