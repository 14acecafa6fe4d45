"""LoRA files: the one place that writes and reads LoRA key names.

Three formats, all safetensors with the scale inside lora_B and no alpha key, so that every reader
applies strength 1:

    diffusers  transformer.<layer>.lora_A.weight         ZImagePipeline.load_lora_weights, ComfyUI
    peft       base_model.model.<layer>.lora_A.weight    set_peft_model_state_dict, PeftModel
    comfyui    diffusion_model.<layer>.lora_A.weight     ComfyUI, load_lora_weights
"""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from i2l_model.errors import InputError
from i2l_model.lora.factors import LoraFactors
from i2l_model.weights import read_weights, write_bytes, write_weights

LoraFormat = Literal["diffusers", "peft", "comfyui"]

_PREFIXES: dict[str, str] = {
    "diffusers": "transformer.",
    "peft": "base_model.model.",
    "comfyui": "diffusion_model.",
}
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
        InputError: If the format or the suffix is unknown, N is not 1 or a factor is not finite.
    """
    path = Path(path)
    if format not in get_args(LoraFormat):
        known = ", ".join(get_args(LoraFormat))
        raise InputError("format", format, "is no LoRA format", f"use one of: {known}")
    if factors.num_loras != 1:
        raise InputError("lora", factors.num_loras, "LoRAs are too many", "fuse or select one")
    factors.check_finite()
    if format == "peft" and not path.suffix:
        write_bytes(_peft_config(factors), path / _PEFT_CONFIG)
        path = path / _PEFT_WEIGHTS
    if path.suffix != ".safetensors":
        raise InputError("output", path, "is no safetensors file", "end the name in .safetensors")
    tensors: dict[str, torch.Tensor] = {}
    for name in factors.lora_A:
        tensors[f"{_PREFIXES[format]}{name}.lora_A.weight"] = factors.lora_A[name][0]
        tensors[f"{_PREFIXES[format]}{name}.lora_B.weight"] = factors.lora_B[name][0]
    write_weights(tensors, path, {"format": "pt", **(metadata or {})})
    return path


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
            sides["A" if match["A"] else "B"][_layer(match["name"])] = tensor[None]
        elif match := _ALPHA.fullmatch(key):
            alphas[_layer(match["name"])] = _number(tensor, key, path)
        else:
            raise InputError(
                "lora", path, f"holds the key '{key}'", "use a LoRA with lora_A and lora_B keys"
            )
    factors = _scaled(LoraFactors(sides["A"], sides["B"]), alphas, config, path)
    factors.check_finite()
    return factors, metadata


def _layer(name: str) -> str:
    for prefix in _PREFIXES.values():
        if name.startswith(prefix):
            return name.removeprefix(prefix)
    return name


def _scaled(
    factors: LoraFactors, alphas: Mapping[str, float], config: Mapping[str, Any], path: Path
) -> LoraFactors:
    for option in ("use_rslora", "use_dora"):
        if config.get(option):
            raise InputError("lora", path, f"uses {option}", "export it with the scale in lora_B")
    lora_B = {}
    for name, B_NOR in factors.lora_B.items():
        rank = B_NOR.shape[2]
        if rank == 0:
            raise InputError("lora", path, f"has rank 0 at '{name}'", _FIX)
        alpha = alphas.get(name, _configured_alpha(name, config, path, default=rank))
        lora_B[name] = B_NOR if math.isclose(alpha, rank) else B_NOR * (alpha / rank)
    return LoraFactors(factors.lora_A, lora_B)


def _configured_alpha(name: str, config: Mapping[str, Any], path: Path, default: float) -> float:
    pattern = config.get("alpha_pattern") or {}
    if not isinstance(pattern, dict):
        raise InputError("lora", path, "has an alpha_pattern that is no JSON object", _FIX)
    for layer, alpha in pattern.items():
        if f".{name}".endswith(f".{layer}"):
            return _number(alpha, f"alpha_pattern.{layer}", path)
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
    other = {
        name: A_NRI.shape[1]
        for name, A_NRI in factors.lora_A.items()
        if A_NRI.shape[1] != factors.rank
    }
    config = {
        "peft_type": "LORA",
        "r": factors.rank,
        "lora_alpha": factors.rank,
        "rank_pattern": other,
        "alpha_pattern": other,
        "target_modules": list(factors.lora_A),
        "lora_dropout": 0.0,
        "bias": "none",
        "inference_mode": True,
    }
    return (json.dumps(config, indent=2) + "\n").encode()


def _without_prefix(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key.removeprefix(_PREFIXES["diffusers"]): value for key, value in config.items()}


def _read_config(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
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
