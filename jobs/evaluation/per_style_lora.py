"""The baseline that i2L replaces: a LoRA trained with PEFT on the references of one style."""

# B batch, N references, C channels, H height, W width

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from peft import LoraConfig
from peft.tuners.lora import LoraLayer, LoraModel
from torch import Tensor, nn

from i2l_model.backbones.base import Backbone
from i2l_model.flow import add_noise, flow_loss
from i2l_model.lora.factors import LoraFactors
from jobs.evaluation.config import EvaluationConfig

ADAPTER = "style"
MAX_GRADIENT_NORM = 1.0


@dataclass(frozen=True, slots=True)
class StyleLora:
    """The LoRA after `num_steps` steps; `seconds` from the decoded references up to there."""

    num_steps: int
    seconds: float
    factors: LoraFactors


def train_style_lora(
    backbone: Backbone,
    references_NCHW: Tensor,
    prompts: Sequence[str],
    config: EvaluationConfig,
    *,
    seed: int,
) -> list[StyleLora]:
    """Train on references in [-1,1] with their prompts; one result a step budget.

    The backbone is left as it was, also after an exception.
    """
    budgets = set(config.style_lora_steps)
    generator = torch.Generator().manual_seed(seed)
    results = []
    seconds = 0.0
    started = _now(backbone)
    with torch.no_grad():
        latents = backbone.encode_images(references_NCHW.to(backbone.device, backbone.dtype))
        embeds = backbone.encode_prompts(list(prompts))
    with _adapter(backbone, config, seed) as adapter:
        parameters = [p for p in adapter.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(
            parameters, lr=config.style_lora_learning_rate, weight_decay=0.0
        )
        for step in range(1, max(budgets) + 1):
            loss = _loss(backbone, latents, embeds, config.style_lora_batch_size, generator)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, MAX_GRADIENT_NORM)
            optimizer.step()
            if step in budgets:
                seconds += _now(backbone) - started
                results.append(StyleLora(step, seconds, _factors(adapter)))
                started = _now(backbone)
    return results


def _loss(
    backbone: Backbone,
    latents_NCHW: Tensor,
    embeds: Sequence[Tensor],
    batch_size: int,
    generator: torch.Generator,
) -> Tensor:
    rows = torch.randint(len(latents_NCHW), (batch_size,), generator=generator)
    data = latents_NCHW[rows.to(latents_NCHW.device)]
    noise = backbone.noise(data.shape, generator).to(data)
    sigmas = backbone.sample_sigmas(batch_size, generator).to(data.device)
    velocity = backbone.velocity(
        add_noise(data, noise, sigmas), sigmas, [embeds[row] for row in rows.tolist()]
    )
    return flow_loss(velocity, data, noise, backbone.loss_weights(sigmas)).mean()


@contextmanager
def _adapter(backbone: Backbone, config: EvaluationConfig, seed: int) -> Iterator[nn.Module]:
    """The backbone's transformer with a fresh PEFT adapter, taken off again at the end."""
    peft_config = LoraConfig(
        r=config.style_lora_rank,
        lora_alpha=config.style_lora_rank,
        target_modules=[target.name for target in backbone.lora_targets()],
        bias="none",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        adapter = LoraModel(backbone.transformer, peft_config, ADAPTER)
    try:
        for parameter in adapter.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
        yield adapter
    finally:
        adapter.unload()
        if hasattr(backbone.transformer, "peft_config"):
            del backbone.transformer.peft_config


def _factors(adapter: nn.Module) -> LoraFactors:
    layers = {
        name.removeprefix("model."): module
        for name, module in adapter.named_modules()
        if isinstance(module, LoraLayer)
    }
    return LoraFactors(
        lora_A={
            name: layer.lora_A[ADAPTER].weight.detach().clone().unsqueeze(0)
            for name, layer in layers.items()
        },
        lora_B={
            name: layer.lora_B[ADAPTER].weight.detach().clone().unsqueeze(0)
            for name, layer in layers.items()
        },
    )


def _now(backbone: Backbone) -> float:
    if torch.device(backbone.device).type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()
