"""Loading a LoRA into a diffusers pipeline by diffusers' own means, and checking that it took."""

from pathlib import Path
from typing import Any

from torch import nn

from i2l_model.errors import InputError
from i2l_model.lora.factors import LoraFactors
from i2l_model.lora.files import load_lora, lora_state
from i2l_model.lora.injection import check_fits

_FIX = "use a pipeline of the backbone the LoRA was made for"


def load_into_pipeline(
    pipeline: Any, lora: LoraFactors | str | Path, adapter_name: str = "i2l"
) -> int:
    """Load a LoRA as an adapter of a pipeline's transformer.

    diffusers only logs when nothing of a file fits; here every layer must have been adapted.

    Args:
        pipeline: A diffusers pipeline with `load_lora_weights`.
        lora: One LoRA, or the safetensors file or PEFT folder of one, in any format.
        adapter_name: Of the new adapter, see `pipeline.set_adapters`.

    Returns:
        The number of adapted layers.

    Raises:
        InputError: If the LoRA does not fit, in which case the pipeline is as before.
    """
    factors = lora if isinstance(lora, LoraFactors) else load_lora(lora)[0]
    source = "LoraFactors" if isinstance(lora, LoraFactors) else lora
    if adapter_name in adapted_modules(pipeline.transformer):
        raise InputError("adapter_name", adapter_name, "is in use", "choose another")
    check_fits(pipeline.transformer, factors)  # before diffusers wraps any layer
    state = lora_state(factors)
    try:
        pipeline.load_lora_weights(state, adapter_name=adapter_name)
    except (ValueError, RuntimeError, KeyError) as error:
        problem = f"does not load ({str(error).splitlines()[0]})"
        raise InputError("lora", source, problem, _FIX) from error
    found = adapted_modules(pipeline.transformer).get(adapter_name, 0)
    if found != len(factors.lora_A):
        pipeline.delete_adapters(adapter_name)
        problem = f"fits {found} of its {len(factors.lora_A)} layers"
        raise InputError("lora", source, problem, _FIX)
    return found


def adapted_modules(transformer: nn.Module) -> dict[str, int]:
    """Return how many modules each loaded adapter changes."""
    counts: dict[str, int] = {}
    for module in transformer.modules():
        lora_A = getattr(module, "lora_A", None)
        for name in lora_A if isinstance(lora_A, nn.ModuleDict) else ():
            counts[name] = counts.get(name, 0) + 1
    return counts
