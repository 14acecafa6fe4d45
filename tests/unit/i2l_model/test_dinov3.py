from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from transformers import DINOv3ViTModel

from i2l_model.dinov3 import Dinov3Encoder, dinov3_sizes
from i2l_model.encoder import ReferenceEncoder
from i2l_model.errors import InputError
from i2l_model.released_towers import DINOV3_7B
from i2l_model.tower_config import Dinov3Config, EncoderConfig
from tests.tiny_checkpoints import damage_weights

SIZES = {
    "patch_size": 8,
    "hidden_size": 16,
    "num_layers": 1,
    "num_heads": 2,
    "intermediate_size": 24,
    "num_registers": 2,
    "gated_mlp": True,
    "query_bias": True,
    "key_bias": False,
    "value_bias": False,
    "hidden_act": "silu",
}


@pytest.fixture
def pretrained(tmp_path: Path) -> Path:
    torch.manual_seed(3)
    encoder = Dinov3Encoder(Dinov3Config(**SIZES), image_size=32)
    encoder.vision.save_pretrained(tmp_path / "dinov3")
    return tmp_path / "dinov3"


@pytest.mark.parametrize("pooled", [False, True])
def test_reads_imagenet_pixels_and_returns_patches_or_the_class_token(pretrained, pooled):
    encoder = Dinov3Encoder(Dinov3Config(path_or_id=str(pretrained)), image_size=32, pooled=pooled)
    images = torch.rand(2, 3, 32, 32)
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    with torch.no_grad():
        all_tokens = DINOv3ViTModel.from_pretrained(pretrained).eval()((images - mean) / std)[0]
    expected = all_tokens[:, :1] if pooled else all_tokens[:, 3:]
    torch.testing.assert_close(encoder(images * 2 - 1), expected, atol=1e-5, rtol=1e-5)
    assert expected.shape[1] == (1 if pooled else 16)


def test_sizes_rebuild_the_same_tower_without_its_source(pretrained: Path):
    encoder = Dinov3Encoder(Dinov3Config(path_or_id=str(pretrained), trainable=True), image_size=32)
    again = Dinov3Encoder(encoder.sizes(), image_size=32)
    again.load_state_dict(encoder.state_dict())
    images = torch.rand(1, 3, 32, 32)
    torch.testing.assert_close(again.eval()(images), encoder.eval()(images))


def test_sizes_are_known_without_the_weights(pretrained: Path):
    config = Dinov3Config(path_or_id=str(pretrained), trainable=True)
    expected = Dinov3Encoder(config, image_size=32).sizes()
    (pretrained / "model.safetensors").unlink()
    assert dinov3_sizes(config) == expected
    assert dinov3_sizes(expected) == expected
    with pytest.raises(InputError, match=r"dinov3\.path_or_id \(.*\) has no readable config"):
        dinov3_sizes(Dinov3Config(path_or_id="/nowhere/dinov3"))


def test_sizes_of_a_released_tower_are_known_without_the_hub():
    source = "facebook/dinov3-vit7b16-pretrain-lvd1689m"
    sizes = dinov3_sizes(Dinov3Config(path_or_id=source, trainable=True))
    assert sizes == DINOV3_7B.model_copy(update={"trainable": True})


@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_an_incomplete_tower_is_refused(pretrained: Path, damage: str):
    file = pretrained / "model.safetensors"
    damage_weights(file, damage)
    problem = "has 1 missing keys" if damage == "missing" else "is no loadable DINOv3"
    with pytest.raises(InputError, match=rf"dinov3\.path_or_id \(.*\) {problem}"):
        Dinov3Encoder(Dinov3Config(path_or_id=str(pretrained)), image_size=32)


def test_another_kind_of_tower_is_refused(pretrained: Path):
    with pytest.raises(
        InputError, match=r"encoder\.path_or_id \(.*\) has \d+ missing keys.* whole SigLIP"
    ):
        ReferenceEncoder(EncoderConfig(path_or_id=str(pretrained)))


def test_a_wrong_source_or_patch_size_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match=r"dinov3.path_or_id \(.*\) does not exist here"):
        Dinov3Encoder(Dinov3Config(path_or_id="/nowhere/dinov3"), image_size=32)
    with pytest.raises(InputError, match=r"dinov3\.path_or_id \(.*\) is no loadable DINOv3"):
        Dinov3Encoder(Dinov3Config(path_or_id=str(tmp_path)), image_size=32)
    with pytest.raises(InputError, match=r"does not divide the encoder's image size \(30\)"):
        Dinov3Encoder(Dinov3Config(**SIZES), image_size=30)


def test_settings_are_checked():
    with pytest.raises(ValidationError, match="patch_size comes from path_or_id"):
        Dinov3Config(path_or_id="x", patch_size=16)
    with pytest.raises(ValidationError, match="patch_size is missing"):
        Dinov3Config()
    with pytest.raises(ValidationError, match="multiple of 4"):
        Dinov3Config(**{**SIZES, "hidden_size": 18})
