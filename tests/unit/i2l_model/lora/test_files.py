import copy
import json
from pathlib import Path

import pytest
import torch
from peft import (
    LoraConfig,
    PeftModel,
    get_peft_model,
    get_peft_model_state_dict,
    set_peft_model_state_dict,
)
from safetensors.torch import load_file, save_file

from i2l_model.errors import InputError
from i2l_model.lora.factors import LoraFactors
from i2l_model.lora.files import load_lora, save_lora

PROMPTS = ["a red circle", "a blue house"]


@pytest.fixture(scope="module")
def batch(backbone):
    generator = torch.Generator().manual_seed(5)
    latents = torch.randn(2, 8, 16, 16, generator=generator)
    return latents, torch.tensor([0.8, 0.4]), backbone.encode_prompts(PROMPTS)


def assert_same(first: LoraFactors, second: LoraFactors) -> None:
    assert first.targets == second.targets or set(first.targets) == set(second.targets)
    for name in first.lora_A:
        torch.testing.assert_close(first.delta(name), second.delta(name))


@pytest.mark.parametrize("lora_format", ["diffusers", "peft", "comfyui"])
def test_roundtrip_keeps_the_bits_and_the_metadata(random_lora, tmp_path: Path, lora_format):
    lora = random_lora(1)
    path = save_lora(lora, tmp_path / "style.safetensors", lora_format, {"style": "ink"})
    loaded, metadata = load_lora(path)
    assert metadata["style"] == "ink"
    for name in lora.lora_A:
        assert torch.equal(loaded.lora_A[name], lora.lora_A[name])
        assert torch.equal(loaded.lora_B[name], lora.lora_B[name])


def test_same_lora_gives_the_same_bytes(random_lora, tmp_path: Path):
    metadata = {f"key{i}": str(i) for i in range(9)}
    first = save_lora(random_lora(1), tmp_path / "a.safetensors", metadata=metadata)
    second = save_lora(random_lora(1), tmp_path / "b.safetensors", metadata=metadata)
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("lora_format", ["diffusers", "comfyui"])
def test_diffusers_loads_every_module_and_draws_what_injection_draws(
    backbone, batch, random_lora, tmp_path: Path, lora_format
):
    lora = random_lora(1)
    path = save_lora(lora, tmp_path / "style.safetensors", lora_format)
    loaded = copy.deepcopy(backbone)
    loaded.pipeline().load_lora_weights(str(path.parent), weight_name=path.name)
    with_lora = [m for m in loaded.transformer.modules() if getattr(m, "lora_A", None)]
    assert len(with_lora) == len(lora.lora_A) == 28
    torch.testing.assert_close(
        loaded.velocity(*batch), backbone.velocity(*batch, lora), atol=1e-4, rtol=0
    )


def test_peft_model_loads_the_folder(backbone, batch, random_lora, tmp_path: Path):
    lora = random_lora(1)
    save_lora(lora, tmp_path / "adapter", "peft")
    loaded = copy.deepcopy(backbone)
    model = PeftModel.from_pretrained(loaded.transformer, tmp_path / "adapter")
    assert sum(bool(getattr(m, "lora_A", None)) for m in model.modules()) == 28
    torch.testing.assert_close(
        loaded.velocity(*batch), backbone.velocity(*batch, lora), atol=1e-4, rtol=0
    )


def test_peft_state_dict_loads_the_file(backbone, batch, random_lora, tmp_path: Path):
    lora = random_lora(1)
    path = save_lora(lora, tmp_path / "adapter.safetensors", "peft")
    loaded = copy.deepcopy(backbone)
    config = LoraConfig(r=4, lora_alpha=4, target_modules=list(lora.lora_A))
    model = get_peft_model(loaded.transformer, config)
    result = set_peft_model_state_dict(model, load_file(path))
    assert not result.unexpected_keys
    torch.testing.assert_close(
        loaded.velocity(*batch), backbone.velocity(*batch, lora), atol=1e-4, rtol=0
    )


def test_mixed_ranks_survive_the_peft_folder(backbone, batch, random_lora, tmp_path: Path):
    first, *others = backbone.lora_targets()
    low, high = random_lora(1, rank=2, targets=[first]), random_lora(1, targets=others)
    lora = LoraFactors({**low.lora_A, **high.lora_A}, {**low.lora_B, **high.lora_B})
    save_lora(lora, tmp_path / "adapter", "peft")
    assert_same(load_lora(tmp_path / "adapter")[0], lora)
    loaded = copy.deepcopy(backbone)
    PeftModel.from_pretrained(loaded.transformer, tmp_path / "adapter")
    torch.testing.assert_close(
        loaded.velocity(*batch), backbone.velocity(*batch, lora), atol=1e-4, rtol=0
    )


def test_foreign_adapter_of_peft_is_read_with_its_alpha(backbone, batch, tmp_path: Path):
    trained = copy.deepcopy(backbone)
    config = LoraConfig(
        r=4,
        lora_alpha=8,
        target_modules=["to_q", "w1"],
        alpha_pattern={r"layers\.0\.attention\.to_q": 2, "^noise_refiner.0.feed_forward.w1": 6},
        init_lora_weights=False,
    )
    model = get_peft_model(trained.transformer, config)
    model.save_pretrained(tmp_path / "adapter")
    lora, _ = load_lora(tmp_path / "adapter")
    torch.testing.assert_close(
        backbone.velocity(*batch, lora), trained.velocity(*batch), atol=1e-4, rtol=0
    )


def test_foreign_file_of_diffusers_is_read_with_its_alpha(backbone, batch, tmp_path: Path):
    trained = copy.deepcopy(backbone)
    pipeline = trained.pipeline()
    trained.transformer.add_adapter(
        LoraConfig(r=4, lora_alpha=8, target_modules=["to_k", "w3"], init_lora_weights=False)
    )
    pipeline.save_lora_weights(
        tmp_path,
        transformer_lora_layers=get_peft_model_state_dict(trained.transformer),
        transformer_lora_adapter_metadata=trained.transformer.peft_config["default"].to_dict(),
    )
    lora, _ = load_lora(tmp_path / "pytorch_lora_weights.safetensors")
    torch.testing.assert_close(
        backbone.velocity(*batch, lora), trained.velocity(*batch), atol=1e-4, rtol=0
    )


@pytest.mark.parametrize(
    ("prefix", "down", "up"),
    [
        ("", "lora_A.default", "lora_B.default"),
        ("diffusion_model.", "lora_down", "lora_up"),
        ("base_model.model.", "lora_A", "lora_B"),
        ("transformer.", "lora.down", "lora.up"),
    ],
)
def test_foreign_keys_and_alpha_are_read(random_lora, tmp_path: Path, prefix, down, up):
    lora = random_lora(1)
    tensors = {}
    for name in lora.lora_A:
        tensors[f"{prefix}{name}.{down}.weight"] = lora.lora_A[name][0]
        tensors[f"{prefix}{name}.{up}.weight"] = lora.lora_B[name][0]
        tensors[f"{prefix}{name}.alpha"] = torch.tensor(2.0)
    save_file(tensors, tmp_path / "foreign.safetensors")
    assert_same(load_lora(tmp_path / "foreign.safetensors")[0], lora.scaled(0.5))


def test_unknown_and_unpaired_keys_are_refused(random_lora, tmp_path: Path):
    lora = random_lora(1)
    path = save_lora(lora, tmp_path / "style.safetensors")
    tensors = load_file(path)
    save_file({**tensors, "transformer.x.dora_scale": torch.ones(1)}, path)
    with pytest.raises(InputError, match=r"holds the key 'transformer\.x\.dora_scale'"):
        load_lora(path)
    tensors.pop("transformer.layers.0.attention.to_q.lora_B.weight")
    save_file(tensors, path)
    with pytest.raises(InputError, match="no pair of factors"):
        load_lora(path)


def test_dora_and_rslora_are_refused(random_lora, tmp_path: Path):
    save_lora(random_lora(1), tmp_path / "adapter", "peft")
    config = tmp_path / "adapter/adapter_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "use_rslora": True}))
    with pytest.raises(InputError, match="uses use_rslora"):
        load_lora(tmp_path / "adapter")


def test_missing_values_are_neither_written_nor_read(random_lora, tmp_path: Path):
    lora = random_lora(1)
    path = save_lora(lora, tmp_path / "style.safetensors")
    tensors = load_file(path)
    next(iter(tensors.values()))[0, 0] = float("nan")
    save_file(tensors, path)
    with pytest.raises(InputError, match="holds NaN"):
        load_lora(path)
    next(iter(lora.lora_A.values()))[0, 0, 0] = float("nan")
    with pytest.raises(InputError, match="holds NaN"):
        save_lora(lora, tmp_path / "other.safetensors")
    assert not (tmp_path / "other.safetensors").exists()


def test_bad_arguments_are_refused(random_lora, tmp_path: Path):
    with pytest.raises(InputError, match="are too many; fuse or select one"):
        save_lora(random_lora(2), tmp_path / "style.safetensors")
    with pytest.raises(InputError, match="use one of: diffusers, peft, comfyui"):
        save_lora(random_lora(1), tmp_path / "style.safetensors", "kohya")
    with pytest.raises(InputError, match=r"end the name in \.safetensors"):
        save_lora(random_lora(1), tmp_path / "style.bin")
    with pytest.raises(InputError, match="does not exist"):
        load_lora(tmp_path / "absent.safetensors")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "has lora_adapter_metadata that is no JSON"),
        ("[1]", "has lora_adapter_metadata that is no adapter config"),
        ('{"transformer.lora_alpha": "high"}', "has a 'lora_alpha' that is no number"),
        ('{"transformer.alpha_pattern": [2]}', "has an alpha_pattern that is no JSON object"),
        (
            '{"transformer.alpha_pattern": {"to_q": [2]}}',
            r"has a 'alpha_pattern\.to_q' that is no number",
        ),
    ],
)
def test_damaged_metadata_is_named(random_lora, tmp_path: Path, text: str, problem: str):
    metadata = {"lora_adapter_metadata": text}
    path = save_lora(random_lora(1), tmp_path / "style.safetensors", metadata=metadata)
    with pytest.raises(InputError, match=rf"style\.safetensors\) {problem}; export it again"):
        load_lora(path)


def test_an_alpha_without_factors_is_refused(random_lora, tmp_path: Path):
    path = save_lora(random_lora(1), tmp_path / "style.safetensors")
    tensors = {**load_file(path), "diffusion_model.layers.0.attention.to_q.alpha": torch.ones(())}
    save_file(tensors, path)
    with pytest.raises(InputError, match=r"has an alpha of 'diffusion_model\.layers.* no factors"):
        load_lora(path)


def test_a_folder_without_an_adapter_config_is_named(tmp_path: Path):
    with pytest.raises(InputError, match=r"has no adapter_config\.json; give a \.safetensors file"):
        load_lora(tmp_path)


def test_an_alpha_of_several_numbers_is_refused(random_lora, tmp_path: Path):
    path = save_lora(random_lora(1), tmp_path / "style.safetensors")
    alpha = {"transformer.layers.0.attention.to_q.alpha": torch.ones(2)}
    save_file({**load_file(path), **alpha}, path)
    with pytest.raises(InputError, match=r"has a 'transformer\..*to_q\.alpha' that is no number"):
        load_lora(path)


def test_a_lora_of_rank_zero_is_refused(tmp_path: Path):
    path = tmp_path / "style.safetensors"
    save_file({"x.lora_A.weight": torch.ones(0, 4), "x.lora_B.weight": torch.ones(4, 0)}, path)
    with pytest.raises(InputError, match="has rank 0 at 'x'; export it again"):
        load_lora(path)
