"""One small resumable training loop for the shipped tiny models.

The batch of a step depends on (seed, step) alone, so a resumed fit sees what an uninterrupted
one would. State lies in one safetensors file, replaced atomically.
"""

import json
import logging
import time
from collections.abc import Callable
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from i2l_model.weights import read_weights, write_weights
from jobs.progress import Progress

logger = logging.getLogger(__name__)

LossFunction = Callable[[torch.Generator], Tensor]


class FitConfig(BaseModel):
    """How long and how fast one tiny model learns."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int = Field(gt=0, description="optimizer steps in all")
    stop_step: int | None = Field(
        None, gt=0, description="stop here, before the schedule of ``steps`` has ended"
    )
    batch_size: int = Field(gt=0, description="samples a step")
    lr: float = Field(gt=0, description="peak learning rate of AdamW, cosine to 2 % of it")
    warmup_steps: int = Field(100, ge=1, description="steps of linear warm-up")
    weight_decay: float = Field(0.01, ge=0, description="AdamW weight decay on matrices")
    ema_decay: float = Field(0.998, ge=0, lt=1, description="decay a step of the averaged weights")
    clip_norm: float = Field(1.0, gt=0, description="gradient norm bound")
    checkpoint_every: int = Field(250, gt=0, description="steps between checkpoints")
    bf16: bool = Field(True, description="autocast to bfloat16 in the forward pass")
    seed: int = Field(0, description="seed of the order of batches and of noise")


def _last_step(config: FitConfig) -> int:
    return min(config.steps, config.stop_step or config.steps)


def learning_rate(step: int, config: FitConfig) -> float:
    """Linear warm-up, then cosine down to 2 % of the peak."""
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    done = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    cosine = 0.5 * (1 + torch.cos(torch.tensor(done * torch.pi)).item())
    return config.lr * (0.02 + 0.98 * cosine)


class _State:
    """Model, averaged weights, optimizer and position, saved and restored as one file."""

    def __init__(self, model: nn.Module, config: FitConfig, path: Path) -> None:
        self.model, self.path, self.step = model, path, 0
        self.ema = {name: p.detach().clone() for name, p in model.named_parameters()}
        matrices = [p for p in model.parameters() if p.requires_grad and p.ndim > 1]
        others = [p for p in model.parameters() if p.requires_grad and p.ndim <= 1]
        groups = [
            {"params": matrices, "weight_decay": config.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(
            [group for group in groups if group["params"]], lr=config.lr, betas=(0.9, 0.99)
        )

    def save(self) -> None:
        tensors = {f"model.{n}": p.detach() for n, p in self.model.named_parameters()}
        tensors |= {f"ema.{n}": p for n, p in self.ema.items()}
        for index, slots in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{slot}": value for slot, value in slots.items()}
        write_weights(tensors, self.path, {"step": str(self.step)})

    def restore(self) -> None:
        tensors, metadata = read_weights(self.path, field="state")
        self.step = int(metadata["step"])
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                parameter.copy_(tensors[f"model.{name}"])
                self.ema[name].copy_(tensors[f"ema.{name}"])
        slots: dict[int, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            if name.startswith("optimizer."):
                _, index, slot = name.split(".")
                slots.setdefault(int(index), {})[slot] = tensor
        state = self.optimizer.state_dict()
        self.optimizer.load_state_dict({**state, "state": slots})

    def average(self, decay: float) -> None:
        decay = min(decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                self.ema[name].lerp_(parameter, 1 - decay)


def fit(
    model: nn.Module,
    loss_of_batch: LossFunction,
    config: FitConfig,
    folder: Path,
    name: str,
    progress: Progress,
) -> None:
    """Trains ``model`` in place, resuming from ``folder``; leaves the averaged weights in it.

    ``loss_of_batch`` draws its own batch with the generator it gets. The loss history goes to
    ``<name>.jsonl``, the state to ``<name>.state.safetensors``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    state = _State(model, config, folder / f"{name}.state.safetensors")
    if state.path.exists():
        state.restore()
        logger.info("%s: resumed at step %d of %d", name, state.step, _last_step(config))
    model.train()
    started, recent, last = time.monotonic(), [], _last_step(config)
    with (folder / f"{name}.jsonl").open("a") as history:
        while state.step < last:
            recent.append(_step(state, loss_of_batch, config))
            if state.step % 25 == 0 or state.step == last:
                loss, recent = sum(recent) / len(recent), []
                seconds = round(time.monotonic() - started, 1)
                line = {"step": state.step, "loss": round(loss, 5), "seconds": seconds}
                history.write(json.dumps(line) + "\n")
                history.flush()
                progress.update(name, state.step, last, f"loss {loss:.4f}")
            if state.step % config.checkpoint_every == 0 or state.step == last:
                state.save()
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            parameter.copy_(state.ema[parameter_name])
    model.eval()


def _step(state: _State, loss_of_batch: LossFunction, config: FitConfig) -> float:
    generator = torch.Generator().manual_seed(config.seed * 1_000_003 + state.step)
    rate = learning_rate(state.step, config)
    for group in state.optimizer.param_groups:
        group["lr"] = rate
    with torch.autocast("cpu", torch.bfloat16, enabled=config.bf16):
        loss = loss_of_batch(generator)
    if not torch.isfinite(loss):
        raise FloatingPointError(f"loss is {loss.item()} at step {state.step}")
    state.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(state.model.parameters(), config.clip_norm)
    state.optimizer.step()
    state.step += 1
    state.average(config.ema_decay)
    return float(loss.detach())
