"""LoRA files: safetensors with the scale inside lora_B and no alpha key, so that strength is 1.

    diffusers  transformer.<layer>.lora_A.weight         load_lora_weights, ComfyUI
    peft       base_model.model.<layer>.lora_A.weight    set_peft_model_state_dict, PeftModel
    comfyui    diffusion_model.<module>.lora_A.weight    ComfyUI, load_lora_weights

A module of ComfyUI is a layer, but for FLUX.2, where it is one of the published model's. diffusers
has no format for HiDream-O1. Files of other programs are read too, see docs/lora.md.
"""

import json
import math
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from i2l_model.errors import InputError
from i2l_model.lora.factors import LoraFactors
from i2l_model.lora.keys import comfyui_modules, family_of, layers_of_key
from i2l_model.lora.stacking import Pair, split_layers, stack_layers
from i2l_model.weights import read_weights, write_bytes, write_weights

LoraFormat = Literal["diffusers", "peft", "comfyui"]

_PEFT_WEIGHTS = "adapter_model.safetensors"
_PEFT_CONFIG = "adapter_config.json"
_DIFFUSERS_CONFIG = "lora_adapter_metadata"  # metadata entry with the LoraConfig as JSON
_KEY = re.compile(
    r"(?P<name>.+)\.((?P<A>lora_A|lora_down|lora\.down)|lora_B|lora_up|lora\.up)(\.default)?\.weight"
)
_ALPHA = re.compile(r"(?P<name>.+)\.alpha")
_FIX = "export it again"


def save_lora(
    factors: LoraFactors,
    path: str | Path,
    format: LoraFormat = "diffusers",  # noqa: A002
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """Write one LoRA.

    Args:
        factors: Exactly one LoRA (N = 1). Fuse several first.
        path: A file ending in ``.safetensors``; for "peft" also a folder, which then holds the
            adapter_config.json that `PeftModel.from_pretrained` needs.
        format: Key names, see the module's description.
        metadata: Strings stored in the file's header.

    Returns:
        The safetensors file.

    Raises:
        InputError: If the format is unknown or not one of the family, the suffix is another, N is
            not 1 or a factor is not finite.
    """
    path = Path(path)
    state = lora_state(factors, format)
    if format == "peft" and path.suffix != ".safetensors":
        write_bytes(_peft_config(factors), path / _PEFT_CONFIG)
        path = path / _PEFT_WEIGHTS
    if path.suffix != ".safetensors":
        raise InputError("output", path, "is no safetensors file", "end the name in .safetensors")
    write_weights(state, path, {"format": "pt", **(metadata or {})})
    return path


def lora_state(
    factors: LoraFactors,
    format: LoraFormat = "diffusers",  # noqa: A002
) -> dict[str, torch.Tensor]:
    """Return the tensors of one LoRA's file by their keys, see `save_lora`.

    Raises:
        InputError: If the format is unknown or not one of the family, N is not 1 or a factor is
            not finite.
    """
    if format not in get_args(LoraFormat):
        known = ", ".join(get_args(LoraFormat))
        raise InputError("format", format, "is no LoRA format", f"use one of: {known}")
    possible = lora_formats(factors.lora_A)
    if format not in possible:
        family = family_of(factors.lora_A)
        problem = f"is no format for {family.name if family else 'these layers'}"
        raise InputError("format", format, problem, f"use {' or '.join(possible)}")
    if factors.num_loras != 1:
        raise InputError("lora", factors.num_loras, "LoRAs are too many", "fuse or select one")
    factors.check_finite()
    state: dict[str, torch.Tensor] = {}
    for module, (A_RI, B_OR) in _modules(factors, format).items():
        state[f"{module}.lora_A.weight"] = A_RI
        state[f"{module}.lora_B.weight"] = B_OR
    return state


def lora_formats(layers: Collection[str]) -> tuple[LoraFormat, ...]:
    """Return the formats that a LoRA of these layers can have, the most widely read one first."""
    family = family_of(layers)
    if family is None or family.diffusers:
        return ("diffusers", "comfyui", "peft")
    return ("comfyui", "peft")


def _modules(factors: LoraFactors, format: LoraFormat) -> dict[str, Pair]:  # noqa: A002
    """The file's modules with their factors."""
    layers = {name: (factors.lora_A[name][0], factors.lora_B[name][0]) for name in factors.lora_A}
    if format == "comfyui":
        parts = comfyui_modules(layers)
        return {
            f"diffusion_model.{module}": stack_layers([layers.get(name) for name in held])
            for module, held in parts.items()
        }
    prefix = "transformer."
    if format == "peft":
        family = family_of(layers)
        prefix = f"base_model.model.{family.root if family else ''}"
    return {f"{prefix}{name}": pair for name, pair in layers.items()}


def load_lora(path: str | Path) -> tuple[LoraFactors, dict[str, str]]:
    """Read one LoRA in any of the formats, its own or a foreign file's.

    Alpha keys, PEFT's adapter_config.json and diffusers' adapter metadata are folded into lora_B.

    Args:
        path: A safetensors file or a PEFT adapter folder.

    Returns:
        The LoRA (N = 1) and the file's metadata.

    Raises:
        InputError: If the file is missing or damaged, holds other keys, unpaired factors or no
            rank, or is not finite.
    """
    path = Path(path)
    config: dict[str, Any] = {}
    if path.is_dir():
        config = _read_config(path / _PEFT_CONFIG)
        path = path / _PEFT_WEIGHTS
    tensors, metadata = read_weights(path, field="lora")
    if _DIFFUSERS_CONFIG in metadata:
        config = _without_prefix(_parsed(metadata[_DIFFUSERS_CONFIG], path, _DIFFUSERS_CONFIG))
    sides: dict[str, dict[str, torch.Tensor]] = {"A": {}, "B": {}}
    alphas: dict[str, float] = {}
    for key, tensor in tensors.items():
        if match := _KEY.fullmatch(key):
            if not tensor.is_floating_point():
                raise InputError("lora", path, f"holds {tensor.dtype} at '{key}'", _FIX)
            if tensor.element_size() == 1:  # float8 has no arithmetic
                tensor = tensor.float()
            sides["A" if match["A"] else "B"][match["name"]] = tensor[None]
        elif match := _ALPHA.fullmatch(key):
            alphas[match["name"]] = _number(tensor, key, path)
        else:
            raise InputError(
                "lora", path, f"holds the key '{key}'", "use a LoRA with lora_A and lora_B keys"
            )
    modules = _scaled(LoraFactors(sides["A"], sides["B"]), alphas, config, path)
    factors = _layers(modules, path)
    family_of(factors.lora_A)
    factors.check_finite()
    return factors, metadata


def _layers(modules: LoraFactors, path: Path) -> LoraFactors:
    """The layers of a file's modules."""
    lora_A: dict[str, torch.Tensor] = {}
    lora_B: dict[str, torch.Tensor] = {}
    for module, A_NRI in modules.lora_A.items():
        names = layers_of_key(module)
        pairs = split_layers((A_NRI[0], modules.lora_B[module][0]), len(names), module)
        for name, (A_RI, B_OR) in zip(names, pairs, strict=True):
            if name in lora_A:
                raise InputError("lora", path, f"holds '{name}' twice", _FIX)
            lora_A[name], lora_B[name] = A_RI[None], B_OR[None]
    return LoraFactors(lora_A, lora_B)


def _scaled(
    factors: LoraFactors, alphas: Mapping[str, float], config: Mapping[str, Any], path: Path
) -> LoraFactors:
    for option in ("use_rslora", "use_dora"):
        if config.get(option):
            raise InputError("lora", path, f"uses {option}", "export it with the scale in lora_B")
    lost = sorted(alphas.keys() - factors.lora_B.keys())
    if lost:
        raise InputError("lora", path, f"has an alpha of '{lost[0]}' and no factors", _FIX)
    lora_B = {}
    for name, B_NOR in factors.lora_B.items():
        rank = B_NOR.shape[2]
        if rank == 0:
            raise InputError("lora", path, f"has rank 0 at '{name}'", _FIX)
        alpha = alphas.get(name)
        if alpha is None:
            alpha = _configured_alpha(name, config, path, default=rank)
        lora_B[name] = B_NOR if math.isclose(alpha, rank) else B_NOR * (alpha / rank)
    return LoraFactors(factors.lora_A, lora_B)


def _configured_alpha(name: str, config: Mapping[str, Any], path: Path, default: float) -> float:
    pattern = config.get("alpha_pattern") or {}
    if not isinstance(pattern, dict):
        raise InputError("lora", path, "has an alpha_pattern that is no JSON object", _FIX)
    layer = name.removeprefix("base_model.model.")
    for expression, alpha in pattern.items():  # as PEFT reads it
        try:
            found = re.match(rf"(.*\.)?({expression})$", layer)
        except re.error as error:
            problem = f"has '{expression}' in alpha_pattern, which is no regular expression"
            raise InputError("lora", path, problem, _FIX) from error
        if found:
            return _number(alpha, f"alpha_pattern.{expression}", path)
    alpha = config.get("lora_alpha")
    return default if alpha is None else _number(alpha, "lora_alpha", path)


def _number(value: Any, key: str, path: Path) -> float:
    """A number of a foreign file: a tensor of one element, or what JSON holds."""
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise InputError("lora", path, f"has a '{key}' that is no number", _FIX) from error


def _peft_config(factors: LoraFactors) -> bytes:
    """PEFT's LoraConfig; alpha equals the rank of every layer, which makes the scale one."""
    family = family_of(factors.lora_A)
    root = family.root if family else ""
    other = {
        f"{root}{name}": A_NRI.shape[1]
        for name, A_NRI in factors.lora_A.items()
        if A_NRI.shape[1] != factors.rank
    }
    config = {
        "peft_type": "LORA",
        "r": factors.rank,
        "lora_alpha": factors.rank,
        "rank_pattern": other,
        "alpha_pattern": other,
        "target_modules": [f"{root}{name}" for name in factors.lora_A],
        "lora_dropout": 0.0,
        "bias": "none",
        "inference_mode": True,
    }
    return (json.dumps(config, indent=2) + "\n").encode()


def _without_prefix(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key.removeprefix("transformer."): value for key, value in config.items()}


def _read_config(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        fix = "give a .safetensors file or a PEFT folder"
        raise InputError("lora", path.parent, f"has no {path.name}", fix) from error
    except (OSError, ValueError) as error:
        raise InputError("lora", path, "is not readable as text", _FIX) from error
    return _parsed(text, path, _PEFT_CONFIG)


def _parsed(text: str, path: Path, what: str) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except ValueError as error:
        raise InputError("lora", path, f"has {what} that is no JSON", _FIX) from error
    if not isinstance(content, dict):
        raise InputError("lora", path, f"has {what} that is no adapter config", _FIX)
    return content
