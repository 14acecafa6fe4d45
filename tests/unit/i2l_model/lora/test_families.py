"""LoRA files of every family: what other programs load, and what they write."""

import copy
import re
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file

from i2l_model.backbones.hidream_o1 import HiDreamO1ForImageGeneration
from i2l_model.backbones.tiny_hidream import build_tiny_hidream
from i2l_model.errors import InputError
from i2l_model.lora.factors import LoraFactors
from i2l_model.lora.files import load_lora, lora_formats, save_lora
from i2l_model.lora.pipelines import adapted_modules, load_into_pipeline
from tests.tiny_backbones import build_tiny, random_factors

FAMILIES = ("z-image", "flux2", "hidream-o1")


@pytest.fixture(params=FAMILIES)
def backbone(request):
    return build_tiny(request.param)


def lora_of(backbone, **options) -> LoraFactors:
    return random_factors(backbone.lora_targets(), **options)


def velocity(backbone, lora: LoraFactors | None = None) -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    latents = backbone.noise((2, *backbone.latent_shape(64, 64)), generator)
    embeds = backbone.encode_prompts(["a red circle", "a blue house"])
    return backbone.velocity(latents, torch.tensor([0.8, 0.4]), embeds, lora)


def assert_same_output(found: torch.Tensor, wanted: torch.Tensor) -> None:
    assert (found - wanted).abs().max() <= 1e-4 * max(1.0, float(wanted.abs().max()))


@pytest.mark.parametrize("lora_format", ["diffusers", "peft", "comfyui"])
def test_a_lora_survives_every_format_of_its_family(backbone, tmp_path: Path, lora_format):
    lora = lora_of(backbone)
    if backbone.family == "hidream-o1" and lora_format == "diffusers":
        with pytest.raises(InputError, match=r"no format for hidream-o1.*; use comfyui or peft"):
            save_lora(lora, tmp_path / "style.safetensors", lora_format)
        return
    loaded, _ = load_lora(save_lora(lora, tmp_path / "style.safetensors", lora_format))
    assert set(loaded.targets) == set(lora.targets)
    for name in lora.lora_A:
        assert torch.equal(loaded.lora_A[name], lora.lora_A[name])
        assert torch.equal(loaded.lora_B[name], lora.lora_B[name])


@pytest.mark.parametrize("lora_format", ["diffusers", "comfyui"])
@pytest.mark.parametrize("family", ["z-image", "flux2", "flux2-dev"])
def test_diffusers_loads_the_file_and_draws_what_injection_draws(
    tmp_path: Path, family, lora_format
):
    backbone = build_tiny(family)
    lora = lora_of(backbone)
    path = save_lora(lora, tmp_path / "style.safetensors", lora_format)
    loaded = copy.deepcopy(backbone)
    loaded.pipeline().load_lora_weights(str(tmp_path), weight_name=path.name, adapter_name="ink")
    assert adapted_modules(loaded.transformer) == {"ink": len(lora.lora_A)}
    assert_same_output(velocity(loaded), velocity(backbone, lora))


def test_peft_loads_the_folder_and_draws_what_injection_draws(backbone, tmp_path: Path):
    lora = lora_of(backbone)
    save_lora(lora, tmp_path / "adapter", "peft")
    if backbone.family == "hidream-o1":  # PEFT is applied to the checkpoint's own class
        build_tiny_hidream(0, tmp_path / "model")
        checkpoint = HiDreamO1ForImageGeneration.from_pretrained(tmp_path / "model")
        model = PeftModel.from_pretrained(checkpoint, tmp_path / "adapter")
        loaded = copy.copy(backbone)
        loaded.transformer = checkpoint.model.eval()
    else:
        loaded = copy.deepcopy(backbone)
        model = PeftModel.from_pretrained(loaded.transformer, tmp_path / "adapter")
    assert adapted_modules(model) == {"default": len(lora.lora_A)}
    assert_same_output(velocity(loaded), velocity(backbone, lora))


def test_comfyui_keys_are_the_published_modules(tmp_path: Path):
    flux = build_tiny("flux2")
    tensors = load_file(save_lora(lora_of(flux), tmp_path / "a.safetensors", "comfyui"))
    modules = {
        **{f"double_blocks.0.{stream}_attn.qkv": (64, 192, 12) for stream in ("img", "txt")},
        **{f"double_blocks.0.{stream}_attn.proj": (64, 64, 4) for stream in ("img", "txt")},
        **{f"double_blocks.0.{stream}_mlp.0": (64, 384, 4) for stream in ("img", "txt")},
        **{f"double_blocks.0.{stream}_mlp.2": (192, 64, 4) for stream in ("img", "txt")},
        **{f"single_blocks.{n}.linear1": (64, 576, 4) for n in range(2)},
        **{f"single_blocks.{n}.linear2": (256, 64, 4) for n in range(2)},
    }
    expected = {}
    for name, (size_in, size_out, rank) in modules.items():
        expected[f"diffusion_model.{name}.lora_A.weight"] = (rank, size_in)
        expected[f"diffusion_model.{name}.lora_B.weight"] = (size_out, rank)
    assert {key: tuple(tensor.shape) for key, tensor in tensors.items()} == expected

    zimage = load_file(
        save_lora(lora_of(build_tiny("z-image")), tmp_path / "z.safetensors", "comfyui")
    )
    block = r"diffusion_model\.(layers\.[01]|(noise|context)_refiner\.0)\."
    module = r"(attention\.(to_[qkv]|to_out\.0)|feed_forward\.w[123])\.lora_[AB]\.weight"
    assert len(zimage) == 56
    assert all(re.fullmatch(block + module, key) for key in zimage)

    hidream = build_tiny("hidream-o1")
    assert lora_formats(lora_of(hidream).lora_A) == ("comfyui", "peft")
    tensors = load_file(save_lora(lora_of(hidream), tmp_path / "h.safetensors", "comfyui"))
    names = [target.name for target in hidream.lora_targets()]
    keys = {f"diffusion_model.{name}.lora_{side}.weight" for name in names for side in "AB"}
    assert set(tensors) == keys


def test_a_stacked_module_holds_only_the_layers_that_have_a_lora(tmp_path: Path):
    targets = [t for t in build_tiny("flux2").lora_targets() if t.name.endswith("attn.to_k")]
    lora = random_factors(targets)
    tensors = load_file(save_lora(lora, tmp_path / "a.safetensors", "comfyui"))
    B = tensors["diffusion_model.double_blocks.0.img_attn.qkv.lora_B.weight"]
    assert torch.equal(B[64:128], lora.lora_B[targets[0].name][0])
    assert not B[:64].any()
    assert not B[128:].any()


FLUX_Q = "transformer_blocks.0.attn.to_q"
HIDREAM_Q = "language_model.layers.0.self_attn.q_proj"
FOREIGN = [
    ("z-image", "layers.0.attention.to_q", "layers.0.attention.to_q"),
    ("z-image", "base_model.model.layers.0.attention.to_q", "layers.0.attention.to_q"),
    ("z-image", "lora_unet_layers_1_attention_to_out_0", "layers.1.attention.to_out.0"),
    ("z-image", "lora_unet_noise_refiner_0_feed_forward_w2", "noise_refiner.0.feed_forward.w2"),
    ("z-image", "lycoris_layers_0_attention_to_k", "layers.0.attention.to_k"),
    ("z-image", "diffusion_model.layers.0.attention.out", "layers.0.attention.to_out.0"),
    ("flux2", f"base_model.model.{FLUX_Q}", FLUX_Q),
    ("flux2", f"diffusion_model.{FLUX_Q}", FLUX_Q),
    ("flux2", "lora_transformer_transformer_blocks_0_attn_to_q", FLUX_Q),
    (
        "flux2",
        "lora_unet_single_transformer_blocks_1_attn_to_out",
        "single_transformer_blocks.1.attn.to_out",
    ),
    (
        "flux2",
        "lora_unet_single_blocks_1_linear1",
        "single_transformer_blocks.1.attn.to_qkv_mlp_proj",
    ),
    ("flux2", "lora_unet_double_blocks_0_txt_mlp_2", "transformer_blocks.0.ff_context.linear_out"),
    ("hidream-o1", f"model.{HIDREAM_Q}", HIDREAM_Q),
    ("hidream-o1", f"base_model.model.model.{HIDREAM_Q}", HIDREAM_Q),
    ("hidream-o1", f"diffusion_model.{HIDREAM_Q}", HIDREAM_Q),
    ("hidream-o1", "lora_unet_model_language_model_layers_0_self_attn_q_proj", HIDREAM_Q),
    ("hidream-o1", "lora_unet_language_model_layers_0_self_attn_q_proj", HIDREAM_Q),
]


@pytest.mark.parametrize(
    "suffixes",
    [("lora_A", "lora_B"), ("lora_down", "lora_up"), ("lora_A.default", "lora_B.default")],
)
@pytest.mark.parametrize(("family", "key", "layer"), FOREIGN)
def test_names_of_other_programs_are_read(tmp_path: Path, family, key, layer, suffixes):
    (target,) = (t for t in build_tiny(family).lora_targets() if t.name == layer)
    lora = random_factors([target])
    down, up = suffixes
    tensors = {
        f"{key}.{down}.weight": lora.lora_A[layer][0],
        f"{key}.{up}.weight": lora.lora_B[layer][0],
        f"{key}.alpha": torch.tensor(2.0),
    }
    save_file(tensors, tmp_path / "foreign.safetensors")
    loaded, _ = load_lora(tmp_path / "foreign.safetensors")
    assert loaded.targets == (target,)
    torch.testing.assert_close(loaded.delta(layer), lora.delta(layer) / 2)


@pytest.mark.parametrize(
    ("family", "key", "layers"),
    [
        (
            "z-image",
            "lora_unet_layers_0_attention_qkv",
            [f"layers.0.attention.to_{x}" for x in "qkv"],
        ),
        (
            "flux2",
            "lora_unet_double_blocks_0_txt_attn_qkv",
            [f"transformer_blocks.0.attn.add_{x}_proj" for x in "qkv"],
        ),
    ],
)
def test_stacked_layers_of_other_programs_are_told_apart(tmp_path: Path, family, key, layers):
    size = next(t for t in build_tiny(family).lora_targets() if t.name == layers[0]).in_features
    down, up = torch.randn(4, size), torch.randn(3 * size, 4)
    tensors = {f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up}
    save_file(tensors, tmp_path / "kohya.safetensors")
    loaded, _ = load_lora(tmp_path / "kohya.safetensors")
    assert list(loaded.lora_A) == layers
    for layer, rows in zip(layers, (up @ down).chunk(3), strict=True):
        torch.testing.assert_close(loaded.delta(layer)[0], rows)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (("lora_unet_down_blocks_0_attn_to_q",), "is a layer of no known model"),
        (("transformer.layers.0.attention.to_q", FLUX_Q), "z-image and flux2.* are mixed"),
        (("transformer.layers.0.attention.to_q", "layers.0.attention.to_q"), "twice"),
    ],
)
def test_files_that_cannot_be_right_are_refused(tmp_path: Path, keys, message):
    tensors = {}
    for key in keys:
        tensors |= {
            f"{key}.lora_A.weight": torch.ones(1, 4),
            f"{key}.lora_B.weight": torch.ones(4, 1),
        }
    save_file(tensors, tmp_path / "bad.safetensors")
    with pytest.raises(InputError, match=message):
        load_lora(tmp_path / "bad.safetensors")


def test_rows_that_are_no_three_layers_are_refused(tmp_path: Path):
    key = "lora_unet_layers_0_attention_qkv"
    tensors = {
        f"{key}.lora_down.weight": torch.ones(1, 4),
        f"{key}.lora_up.weight": torch.ones(8, 1),
    }
    save_file(tensors, tmp_path / "bad.safetensors")
    with pytest.raises(InputError, match="has 8 rows, which are no 3 layers"):
        load_lora(tmp_path / "bad.safetensors")


@pytest.mark.parametrize("family", ["z-image", "flux2"])
def test_loading_into_a_pipeline_counts_the_layers(tmp_path: Path, family):
    backbone = copy.deepcopy(build_tiny(family))
    before = velocity(backbone)
    pipeline = backbone.pipeline()
    lora = lora_of(backbone)
    path = save_lora(lora, tmp_path / "style.safetensors", "comfyui")
    assert load_into_pipeline(pipeline, path) == len(lora.lora_A)
    assert backbone.lora_targets() == build_tiny(family).lora_targets()
    assert_same_output(velocity(backbone), velocity(build_tiny(family), lora))
    with pytest.raises(InputError, match=r"adapter_name \(i2l\) is in use"):
        load_into_pipeline(pipeline, path)
    pipeline.delete_adapters("i2l")
    other = {"z-image": "flux2", "flux2": "z-image"}[family]
    wrong = save_lora(lora_of(build_tiny(other)), tmp_path / "wrong.safetensors")
    with pytest.raises(
        InputError, match="is no layer of this backbone; use a LoRA made for this backbone"
    ):
        load_into_pipeline(pipeline, wrong)
    assert adapted_modules(backbone.transformer) == {}
    torch.testing.assert_close(velocity(backbone), before)


def test_a_weighted_sum_is_exact_for_any_ranks_and_layers(backbone):
    targets = backbone.lora_targets()
    first, second = (
        random_factors(targets[:-1], rank=2),
        random_factors(targets[1:], rank=3, seed=1),
    )
    fused = LoraFactors.weighted_sum([first, second], [0.7, -1.5])
    assert set(fused.targets) == set(targets)
    for target in targets:
        expected = torch.zeros(1, target.out_features, target.in_features)
        for part, weight in ((first, 0.7), (second, -1.5)):
            if target.name in part.lora_A:
                expected += weight * part.delta(target.name)
        assert (fused.delta(target.name) - expected).abs().max() <= 1e-5


def test_a_weighted_sum_of_what_does_not_fit_is_refused():
    lora = lora_of(build_tiny("flux2"))
    name = next(iter(lora.lora_A))
    other = LoraFactors({name: torch.ones(1, 2, 5)}, {name: torch.ones(1, 5, 2)})
    with pytest.raises(InputError, match="has different sizes"):
        LoraFactors.weighted_sum([lora, other], [1, 1])
    with pytest.raises(InputError, match="must be 2 numbers"):
        LoraFactors.weighted_sum([lora, lora], [1])
    with pytest.raises(InputError, match="hold several LoRAs"):
        LoraFactors.weighted_sum([lora_of(build_tiny("flux2"), num_loras=2)], [1])
