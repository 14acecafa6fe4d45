"""Targets of the released sizes: names, shapes and counts of the published models."""

import re
from collections import Counter

import pytest

from i2l_model.backbones.released import RELEASED, released
from i2l_model.errors import InputError


def zimage_table() -> dict[str, tuple[int, int, int]]:
    blocks = r"(layers|noise_refiner|context_refiner)\.\d+\."
    table = {
        rf"{blocks}attention\.{m}": (34, 3840, 3840) for m in ("to_q", "to_k", "to_v", r"to_out\.0")
    }
    table |= {rf"{blocks}feed_forward\.{m}": (34, 3840, 10240) for m in ("w1", "w3")}
    return table | {rf"{blocks}feed_forward\.w2": (34, 10240, 3840)}


def flux2_table(double: int, single: int, dim: int) -> dict[str, tuple[int, int, int]]:
    attention = ("to_q", "to_k", "to_v", r"to_out\.0", "add_q_proj", "add_k_proj", "add_v_proj")
    blocks, single_blocks = r"transformer_blocks\.\d+\.", r"single_transformer_blocks\.\d+\.attn\."
    table = {rf"{blocks}attn\.{m}": (double, dim, dim) for m in (*attention, "to_add_out")}
    for part in ("ff", "ff_context"):
        table[rf"{blocks}{part}\.linear_in"] = (double, dim, 6 * dim)
        table[rf"{blocks}{part}\.linear_out"] = (double, 3 * dim, dim)
    table[rf"{single_blocks}to_qkv_mlp_proj"] = (single, dim, 9 * dim)
    return table | {rf"{single_blocks}to_out": (single, 4 * dim, dim)}


def hidream_table() -> dict[str, tuple[int, int, int]]:
    layers = r"language_model\.layers\.\d+\."
    table = {rf"{layers}self_attn\.{m}_proj": (36, 4096, 4096) for m in "qo"}
    table |= {rf"{layers}self_attn\.{m}_proj": (36, 4096, 1024) for m in "kv"}
    table |= {rf"{layers}mlp\.{m}_proj": (36, 4096, 12288) for m in ("gate", "up")}
    return table | {rf"{layers}mlp\.down_proj": (36, 12288, 4096)}


# name: expression -> (count, in, out); LoRA parameters a rank; parameters of the transformer
TABLES = {
    "z-image": (zimage_table(), 2_480_640, 6_154_908_736),
    "flux.2-klein-base-4b": (flux2_table(5, 20, 3072), 1_505_280, 3_875_544_576),
    "flux.2-klein-9b": (flux2_table(8, 24, 4096), 2_719_744, 9_078_581_248),
    "flux.2-dev": (flux2_table(8, 48, 6144), 6_291_456, 32_223_281_152),
    # Qwen3-VL-8B without the language head and the vision tower, and the three embedders
    "hidream-o1": (
        hidream_table(),
        2_727_936,
        8_767_123_696 - 622_329_856 - 576_388_336 + 37_764_096,
    ),
}


@pytest.mark.parametrize("name", TABLES)
def test_targets_and_parameters_are_those_of_the_published_model(name: str):
    table, lora_size, num_parameters = TABLES[name]
    model = released(name)
    transformer = model.transformer()
    targets = model.backbone.targets_of(transformer)
    found = Counter(
        (pattern, target.in_features, target.out_features)
        for target in targets
        for pattern in table
        if re.fullmatch(pattern, target.name)
    )
    expected = {(pattern, i, o): count for pattern, (count, i, o) in table.items()}
    assert found == expected
    assert len(targets) == sum(expected.values())
    assert sum(target.in_features + target.out_features for target in targets) == lora_size
    assert sum(parameter.numel() for parameter in transformer.parameters()) == num_parameters
    assert all(parameter.is_meta for parameter in transformer.parameters())


def test_variants_share_their_sizes():
    assert RELEASED["z-image-turbo"].build is RELEASED["z-image"].build
    assert RELEASED["flux.2-klein-4b"].build is RELEASED["flux.2-klein-base-4b"].build
    assert RELEASED["hidream-o1-dev"].build is RELEASED["hidream-o1"].build


def test_an_unknown_name_is_refused():
    with pytest.raises(InputError, match=r"is no released model; use one of: z-image, "):
        released("sdxl")
