import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from i2l_model.backbones import load_backbone
from i2l_model.backbones.tiny import build_tiny_zimage
from i2l_model.backbones.tiny_flux2 import build_tiny_flux2
from i2l_model.backbones.tiny_hidream import build_tiny_hidream
from i2l_model.errors import InputError
from tests.tiny_checkpoints import damage_weights


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "small-zimage"
    build_tiny_zimage(0, folder)
    return folder


def outputs(backbone) -> torch.Tensor:
    latents = torch.ones(1, 8, 16, 16)
    return backbone.velocity(latents, torch.full((1,), 0.5), backbone.encode_prompts(["a circle"]))


def test_a_saved_backbone_loads_with_the_same_outputs(backbone, folder: Path):
    loaded = load_backbone(folder)
    assert loaded.name == "small-zimage"
    assert loaded.image_size == 64
    assert (loaded.device, loaded.dtype) == (torch.device("cpu"), torch.float32)
    assert loaded.lora_targets() == backbone.lora_targets()
    torch.testing.assert_close(outputs(loaded), outputs(backbone))
    assert not any(parameter.requires_grad for parameter in loaded.transformer.parameters())


def test_dtype_applies_to_all_weights(folder: Path):
    loaded = load_backbone(str(folder), dtype=torch.bfloat16)
    assert loaded.dtype == loaded.vae.dtype == loaded.text_encoder.dtype == torch.bfloat16
    assert outputs(loaded).dtype == torch.float32


@pytest.mark.parametrize("name", ["nowhere", "./a/b", "/a/b", "a/b/c"])
def test_an_absent_folder_is_refused(name: str):
    with pytest.raises(InputError, match=r"backbone \(.*\) does not exist; give a model folder"):
        load_backbone(name)


def test_an_unreachable_hub_id_is_refused():
    with pytest.raises(InputError, match="check the name and the connection"):
        load_backbone("nobody/nothing-here")


def test_a_folder_of_something_else_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match=r"has no model_index.json or config.json"):
        load_backbone(tmp_path)
    (tmp_path / "model_index.json").write_text("{")
    with pytest.raises(InputError, match=r"has no readable model_index.json or config.json"):
        load_backbone(tmp_path)
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "FluxPipeline"}))
    with pytest.raises(InputError, match="is a FluxPipeline; use one of: ZImagePipeline"):
        load_backbone(tmp_path)


@pytest.mark.parametrize("part", ["transformer", "vae", "text_encoder"])
def test_missing_or_pickled_weights_are_refused(tmp_path: Path, part: str):
    folder = tmp_path / "model"
    build_tiny_zimage(0, folder)
    (weights,) = (folder / part).glob("*.safetensors")
    torch.save({}, weights.with_suffix(".bin"))
    weights.unlink()
    with pytest.raises(InputError, match="does not load"):
        load_backbone(folder)


@pytest.mark.parametrize("damage", ["missing", "cut"])
@pytest.mark.parametrize("part", ["transformer", "vae", "text_encoder"])
def test_incomplete_weights_are_refused(tmp_path: Path, part: str, damage: str):
    build_tiny_zimage(0, tmp_path / "model")
    (file,) = (tmp_path / "model" / part).glob("*.safetensors")
    damage_weights(file, damage)
    with pytest.raises(InputError, match=r"backbone \(.*model\) (does not load|has 1 missing key)"):
        load_backbone(tmp_path / "model")


def test_the_distilled_model_is_told_by_its_own_name_or_that_of_the_hub(tmp_path: Path):
    hub = tmp_path / "models--HiDream-ai--HiDream-O1-Image-Dev" / "snapshots" / "0a1b"
    build_tiny_hidream(0, hub)
    (tmp_path / "hidream_o1_dev").symlink_to(hub)
    plain = tmp_path / "hidream-o1"
    build_tiny_hidream(0, plain)
    found = [load_backbone(folder) for folder in (hub, tmp_path / "hidream_o1_dev", plain)]
    assert [backbone.distilled for backbone in found] == [True, True, False]
    assert found[1].name == "hidream_o1_dev"


@pytest.mark.parametrize("dev", [False, True])
@pytest.mark.parametrize("build", [build_tiny_flux2, build_tiny_hidream])
def test_every_family_loads_as_it_was_saved(tmp_path: Path, build, dev: bool):
    saved = build(0, tmp_path / ("small-dev" if dev else "small"), dev=dev)
    loaded = load_backbone(tmp_path / saved.name)
    assert type(loaded) is type(saved)
    assert (loaded.name, loaded.image_size) == (saved.name, 64)
    assert loaded.noise_scale == saved.noise_scale
    latents = torch.ones(1, *saved.latent_shape(64, 64))
    expected, found = (
        model.velocity(latents, torch.full((1,), 0.5), model.encode_prompts(["a circle"]))
        for model in (saved, loaded)
    )
    assert torch.equal(found, expected)
    assert not any(parameter.requires_grad for parameter in loaded.transformer.parameters())


def test_a_vision_language_model_that_cannot_draw_is_refused(tmp_path: Path):
    build_tiny_hidream(0, tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    weights = {k: v for k, v in weights.items() if "embedder" not in k and "final_" not in k}
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=r"has 9 missing keys, model\.final_layer2\.linear\.bias"):
        load_backbone(tmp_path)
