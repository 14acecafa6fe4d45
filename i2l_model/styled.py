"""Styling diffusers' own pipelines: text-to-image, image-to-image, inpaint and ControlNet.

A pipeline guides by a positive and a negative branch, which Z-Image's run as one batch and FLUX.2's
one after the other. Here the transformer's forward is wrapped for the time of a context, such that
each branch carries its own LoRA. A ControlNet that shares layers with the transformer stays bare,
since its forward is another.
"""

# B images of a branch, N LoRAs, K = B / N images a LoRA

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from diffusers import Flux2Transformer2DModel, ZImageTransformer2DModel

from i2l_model.errors import InputError
from i2l_model.guidance import Guidance, negative_branch
from i2l_model.lora.factors import LoraFactors
from i2l_model.lora.injection import check_fits, inject_lora

_POSITIVE, _NEGATIVE = "cond", "uncond"  # as diffusers calls the branches


@contextmanager
def styled(
    pipeline: Any,
    lora: LoraFactors,
    *,
    strength: float = 1.0,
    guidance: Guidance = "positive_only",
    negative_lora: LoraFactors | None = None,
) -> Iterator[None]:
    """Apply LoRAs to a pipeline while the context lasts, on top of adapters it may have.

    Leaving the context, also through an exception, leaves the pipeline as it was.

    Args:
        pipeline: Any Z-Image or FLUX.2 pipeline of diffusers.
        lora: N LoRAs; of the B images of a call, image i uses LoRA i // (B / N).
        strength: Factor on all LoRAs; 0 draws what the bare pipeline draws.
        guidance: What the negative branch carries: no LoRA ("positive_only"), ``negative_lora``
            ("neutral_negative"), or the LoRA of its image ("symmetric").
        negative_lora: One LoRA, or N, of the same layers and rank as ``lora``.

    Raises:
        InputError: If the pipeline is of another family, the LoRA does not fit, or arguments
            do not go together.
    """
    transformer = pipeline.transformer
    lora.check_finite("lora")
    if not math.isfinite(strength):
        raise InputError("strength", strength, "is not finite", "use a number such as 1")
    negative = negative_branch(lora, guidance, negative_lora)
    branches = {_POSITIVE: lora.scaled(strength), _NEGATIVE: negative.scaled(strength)}
    if isinstance(transformer, ZImageTransformer2DModel):
        wrapped = _batched_branches(pipeline, branches)
    elif isinstance(transformer, Flux2Transformer2DModel):
        wrapped = _separate_branches(pipeline, branches)
    else:
        kind = type(transformer).__name__
        raise InputError("pipeline", kind, "cannot be styled", "use one of Z-Image or FLUX.2")
    check_fits(transformer, branches[_POSITIVE])  # before anything is drawn
    with wrapped:
        yield


def pipeline_guidance(pipeline: Any, guidance_scale: float) -> float:
    """Return a pipeline's own ``guidance_scale`` for the usual one, whose 1 means no guidance.

    Z-Image's pipelines count from 0.
    """
    offset = 1 if isinstance(pipeline.transformer, ZImageTransformer2DModel) else 0
    return guidance_scale - offset


def _batched_branches(
    pipeline: Any, branches: dict[str, LoraFactors]
) -> AbstractContextManager[None]:
    """Z-Image: one forward of all positive samples, then all negative ones."""
    both = LoraFactors.concat([branches[_POSITIVE], branches[_NEGATIVE]])

    def lora_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> LoraFactors:
        time = args[1] if len(args) > 1 else kwargs["t"]
        return both if _is_guided(pipeline, float(time[0])) else branches[_POSITIVE]

    return _wrapped(pipeline.transformer, lora_of)


def _is_guided(pipeline: Any, time: float) -> bool:
    """Whether the call at this time, 1 being the clean image, holds a negative branch."""
    last = pipeline._cfg_truncation  # guidance ends there
    truncated = last is not None and float(last) <= 1 and time > float(last)
    return bool(pipeline.do_classifier_free_guidance) and not truncated


@contextmanager
def _separate_branches(pipeline: Any, branches: dict[str, LoraFactors]) -> Iterator[None]:
    """FLUX.2: a forward for each branch, which the pipeline names for its caches."""
    transformer = pipeline.transformer
    current = [_POSITIVE]

    @contextmanager
    def named(name: str, **options: Any) -> Iterator[None]:
        current.append(name)
        try:
            with plain(name, **options):
                yield
        finally:
            current.pop()

    plain = transformer.cache_context
    with (
        _replaced(transformer, "cache_context", named),
        _wrapped(transformer, lambda _args, _kwargs: branches[current[-1]]),
    ):
        yield


@contextmanager
def _wrapped(
    transformer: Any, lora_of: Callable[[tuple[Any, ...], dict[str, Any]], LoraFactors]
) -> Iterator[None]:
    """Run every forward of the transformer with the LoRAs that ``lora_of`` says."""
    plain = transformer.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        lora = lora_of(args, kwargs).to(_device(args, kwargs))
        with inject_lora(transformer, lora):
            return plain(*args, **kwargs)

    with _replaced(transformer, "forward", forward):
        yield


@contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Set an attribute of the instance, and put back what the instance had."""
    own = vars(owner).get(name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if own is None:
            delattr(owner, name)
        else:
            setattr(owner, name, own)


def _device(args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.device:
    """Where the transformer's inputs lie; offloaded weights may be elsewhere."""
    first = args[0] if args else kwargs["hidden_states" if "hidden_states" in kwargs else "x"]
    while isinstance(first, list):  # of samples, and in Z-Image Omni of each one's images
        first = first[0]
    device: torch.device = first.device
    return device
