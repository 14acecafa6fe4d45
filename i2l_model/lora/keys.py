"""How other programs name the layers of each family in LoRA files.

The project's names are the module paths inside the transformer. ComfyUI keeps the published modules
of FLUX.2, where query, key and value are one linear; kohya writes underscores for dots.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from itertools import product

from i2l_model.errors import InputError

_PREFIXES = ("base_model.model.", "model.diffusion_model.", "transformer.", "diffusion_model.")
_FLAT_PREFIXES = ("lora_unet_", "lora_transformer_", "lycoris_")


@dataclass(frozen=True)
class Native:
    """A module of the published model: the layers that it holds, stacked along its rows."""

    block: str
    module: str


@dataclass(frozen=True)
class Family:
    """Names of one family's layers.

    Attributes:
        name: As in `Backbone.family`.
        blocks: Where the numbered blocks are, each with the modules inside of a block.
        native: Published module to the modules it holds, by block, where the names differ.
        comfyui_native: Whether ComfyUI files carry the published names.
        diffusers: Whether diffusers has a pipeline that loads LoRAs.
        root: Path of the transformer inside of the model that PEFT is applied to.
    """

    name: str
    blocks: Mapping[str, tuple[str, ...]]
    native: Mapping[Native, tuple[str, tuple[str, ...]]] = field(default_factory=dict)
    comfyui_native: bool = False
    diffusers: bool = True
    root: str = ""

    def holds(self, layer: str) -> bool:
        """Whether the layer lies in a block of this family."""
        return any(re.match(rf"{re.escape(block)}\.\d+\.", layer) for block in self.blocks)


_ATTENTION = ("attention.to_q", "attention.to_k", "attention.to_v", "attention.to_out.0")
_ZIMAGE_MODULES = (*_ATTENTION, "feed_forward.w1", "feed_forward.w2", "feed_forward.w3")
Z_IMAGE = Family(
    "z-image",
    {
        "layers": (*_ZIMAGE_MODULES, "adaLN_modulation.0"),
        "noise_refiner": (*_ZIMAGE_MODULES, "adaLN_modulation.0"),
        "context_refiner": _ZIMAGE_MODULES,
    },
    {
        Native(block, module): (block, held)
        for block, (module, held) in product(
            ("layers", "noise_refiner", "context_refiner"),
            (("attention.qkv", _ATTENTION[:3]), ("attention.out", _ATTENTION[3:])),
        )
    },
)
_DOUBLE, _SINGLE = "transformer_blocks", "single_transformer_blocks"
_FLUX2_NATIVE = {
    Native("double_blocks", "img_attn.qkv"): (_DOUBLE, ("attn.to_q", "attn.to_k", "attn.to_v")),
    Native("double_blocks", "img_attn.proj"): (_DOUBLE, ("attn.to_out.0",)),
    Native("double_blocks", "img_mlp.0"): (_DOUBLE, ("ff.linear_in",)),
    Native("double_blocks", "img_mlp.2"): (_DOUBLE, ("ff.linear_out",)),
    Native("double_blocks", "txt_attn.qkv"): (
        _DOUBLE,
        ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    ),
    Native("double_blocks", "txt_attn.proj"): (_DOUBLE, ("attn.to_add_out",)),
    Native("double_blocks", "txt_mlp.0"): (_DOUBLE, ("ff_context.linear_in",)),
    Native("double_blocks", "txt_mlp.2"): (_DOUBLE, ("ff_context.linear_out",)),
    Native("single_blocks", "linear1"): (_SINGLE, ("attn.to_qkv_mlp_proj",)),
    Native("single_blocks", "linear2"): (_SINGLE, ("attn.to_out",)),
}
FLUX2 = Family(
    "flux2",
    {
        block: tuple(m for b, held in _FLUX2_NATIVE.values() if b == block for m in held)
        for block in (_DOUBLE, _SINGLE)
    },
    _FLUX2_NATIVE,
    comfyui_native=True,
)
HIDREAM_O1 = Family(
    "hidream-o1",
    {
        "language_model.layers": (
            *(f"self_attn.{name}_proj" for name in "qkvo"),
            *(f"mlp.{name}_proj" for name in ("gate", "up", "down")),
        )
    },
    diffusers=False,
    root="model.",
)
FAMILIES = (Z_IMAGE, FLUX2, HIDREAM_O1)


def family_of(layers: Collection[str]) -> Family | None:
    """Return the family whose blocks hold the layers, or None for layers of no family.

    Raises:
        InputError: If they are of two.
    """
    found = [family for family in FAMILIES if any(family.holds(layer) for layer in layers)]
    if len(found) > 1:
        names = " and ".join(family.name for family in found)
        raise InputError("lora", names, "are mixed in one LoRA", "use the LoRA of one backbone")
    return found[0] if found else None


def layers_of_key(name: str) -> tuple[str, ...]:
    """Return the layers that a module of a file stands for; several where it holds them stacked.

    Args:
        name: A key without its suffix, such as ``lora_unet_layers_0_attention_to_q``.

    Raises:
        InputError: If it has underscores for dots and is of no known family.
    """
    for prefix in _FLAT_PREFIXES:
        if name.startswith(prefix):
            return _from_flat(name.removeprefix(prefix), name)
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    if name.startswith("model.language_model."):
        name = name.removeprefix("model.")
    return _DOTTED.layers(name) or (name,)


def comfyui_modules(layers: Collection[str]) -> dict[str, tuple[str, ...]]:
    """Return the modules of a ComfyUI file with the layers that each holds, absent ones as well."""
    family = family_of(layers)
    if family is None or not family.comfyui_native:
        return {layer: (layer,) for layer in layers}
    of_layer = {
        (block, module): (native, held)
        for native, (block, held) in family.native.items()
        for module in held
    }
    modules: dict[str, tuple[str, ...]] = {}
    for layer in layers:
        block, number, module = _split(layer)
        if (block, module) in of_layer:
            native, held = of_layer[block, module]
            key = f"{native.block}.{number}.{native.module}"
            modules[key] = tuple(f"{block}.{number}.{name}" for name in held)
        else:
            modules[layer] = (layer,)
    return modules


def _split(layer: str) -> tuple[str, str, str]:
    """Block, number and module of a layer; all empty where there is no number."""
    match = re.fullmatch(r"(.+?)\.(\d+)\.(.+)", layer)
    return (match[1], match[2], match[3]) if match else ("", "", "")


class _Names:
    """Finds the layers of a module by its name, with one separator between the name's parts."""

    def __init__(self, separator: str) -> None:
        self._separator = separator
        self._layers: dict[tuple[str, str], tuple[str, tuple[str, ...]]] = {}
        for family in FAMILIES:
            for block, modules in family.blocks.items():
                for module in modules:
                    self._add(block, module, block, (module,))
            for native, (block, held) in family.native.items():
                self._add(native.block, native.module, block, held)

    def _add(self, block: str, module: str, own: str, held: tuple[str, ...]) -> None:
        flat = (text.replace(".", self._separator) for text in (block, module))
        self._layers[next(flat), next(flat)] = (own, held)

    def layers(self, name: str) -> tuple[str, ...]:
        """Return the layers, or none."""
        between = re.escape(self._separator)
        for match in re.finditer(rf"(?<={between})\d+(?={between})", name):
            block, module = name[: match.start() - 1], name[match.end() + 1 :]
            if (block, module) in self._layers:
                own, held = self._layers[block, module]
                return tuple(f"{own}.{match[0]}.{part}" for part in held)
        return ()


_DOTTED, _FLAT = _Names("."), _Names("_")


def _from_flat(name: str, key: str) -> tuple[str, ...]:
    layers = _FLAT.layers(name) or _FLAT.layers(name.removeprefix("model_"))
    if not layers:
        known = ", ".join(family.name for family in FAMILIES)
        raise InputError("lora", key, "is a layer of no known model", f"use a LoRA for {known}")
    return layers
