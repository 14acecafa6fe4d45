"""What is measured of the steps between two log lines: losses, gradients, times, memory."""

# B targets of a pass, S noise level bands

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
import torch.distributed as dist

from jobs.training.sigma_bands import HIGH_SIGMA

SIGMA_EDGES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
PARTS = ("data_wait", "encode", "forward", "backward", "optimizer")
_NUM_BANDS = len(SIGMA_EDGES) - 1
_GIB = 1 << 30


@dataclass(slots=True)
class StepMetrics:
    """Sums of this rank since the last log line.

    Args:
        device: Device of the training; work on it is waited for where a time is taken.

    Attributes:
        num_steps: Steps, those that were left out too.
        num_made: Steps that were made; losses and gradients are of these.
    """

    device: torch.device
    losses_S: torch.Tensor = field(default_factory=lambda: torch.zeros(_NUM_BANDS).double())
    counts_S: torch.Tensor = field(default_factory=lambda: torch.zeros(_NUM_BANDS).double())
    high_loss: float = 0.0
    num_high: int = 0
    num_steps: int = 0
    num_made: int = 0
    num_samples: int = 0
    grad_norm: float = 0.0
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))
    started: float = field(default_factory=time.monotonic)

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Add the time of a block to one of ``PARTS``."""
        started = time.monotonic()
        yield
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.seconds[part] += time.monotonic() - started

    def add_losses(self, loss_B: torch.Tensor, sigmas_B: torch.Tensor) -> None:
        """Add the losses of a pass whose step was made."""
        bands = torch.bucketize(sigmas_B, torch.tensor(SIGMA_EDGES[1:-1]))
        self.losses_S.index_add_(0, bands, loss_B.double())
        self.counts_S.index_add_(0, bands, torch.ones_like(loss_B).double())
        high = sigmas_B > HIGH_SIGMA
        self.high_loss += float(loss_B[high].sum())
        self.num_high += int(high.sum())

    def pause(self, seconds: float) -> None:
        """Leave out of the step time what was no step: a validation, a checkpoint."""
        self.started += seconds

    def combined(self) -> dict[str, float]:
        """Metrics over all ranks; all call it together.

        Losses and gradients are of the steps that were made, and absent where there is none. Times
        are means over the ranks, in seconds a step; memory is that of the rank which has most.
        """
        scalars = [self.high_loss, self.num_high, self.num_samples, *self.seconds.values()]
        sums = torch.cat([torch.tensor(scalars).double(), self.losses_S, self.counts_S])
        sums = sums.to(self.device)
        dist.all_reduce(sums)
        peak = torch.tensor([self._peak_gib()], device=self.device)
        dist.all_reduce(peak, dist.ReduceOp.MAX)
        high_loss, num_high, num_samples, *rest = sums.tolist()
        seconds, bands = rest[: len(PARTS)], rest[len(PARTS) :]
        elapsed_s = time.monotonic() - self.started
        parts = dist.get_world_size() * self.num_steps
        return {
            "time/step_s": elapsed_s / self.num_steps,
            **{f"time/{name}_s": s / parts for name, s in zip(PARTS, seconds, strict=True)},
            "data/samples_per_s": num_samples / elapsed_s,
            "memory/peak_gib": float(peak),
            **({"optim/grad_norm": self.grad_norm / self.num_made} if self.num_made else {}),
            **_losses(bands[:_NUM_BANDS], bands[_NUM_BANDS:]),
            **({"train/loss_high_sigma": high_loss / num_high} if num_high else {}),
        }

    def _peak_gib(self) -> float:
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) / _GIB
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / _GIB


def _losses(losses: list[float], counts: list[float]) -> dict[str, float]:
    if not sum(counts):
        return {}
    metrics = {"train/loss": sum(losses) / sum(counts)}
    for band, (loss, count) in enumerate(zip(losses, counts, strict=True)):
        if count:
            low, high = SIGMA_EDGES[band], SIGMA_EDGES[band + 1]
            metrics[f"train/loss_sigma_{low:.1f}_{high:.1f}"] = loss / count
    return metrics
