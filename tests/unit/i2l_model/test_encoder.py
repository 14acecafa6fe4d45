from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from transformers import SiglipConfig, SiglipModel, SiglipTextConfig, SiglipVisionConfig

from i2l_model.encoder import ReferenceEncoder, encoder_sizes
from i2l_model.errors import InputError
from i2l_model.released_towers import SIGLIP2_GIANT_384
from i2l_model.tower_config import EncoderConfig

SIZES = {"image_size": 32, "patch_size": 8, "hidden_size": 24, "num_layers": 2, "num_heads": 2}


def vision_config() -> SiglipVisionConfig:
    return SiglipVisionConfig(
        image_size=32,
        patch_size=8,
        hidden_size=24,
        intermediate_size=40,
        num_hidden_layers=2,
        num_attention_heads=2,
    )


@pytest.fixture
def pretrained(tmp_path: Path) -> Path:
    """A whole SigLIP checkpoint, text tower included, as on the hub."""
    text = SiglipTextConfig(
        vocab_size=20,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
    )
    model = SiglipModel(SiglipConfig(text_config=text, vision_config=vision_config()))
    model.save_pretrained(tmp_path / "siglip")
    return tmp_path / "siglip"


def test_tokens_are_one_a_patch():
    encoder = ReferenceEncoder(EncoderConfig(**SIZES))
    assert encoder(torch.rand(2, 3, 32, 32)).shape == (2, 16, 24)
    assert (encoder.image_size, encoder.hidden_size) == (32, 24)


def test_a_whole_checkpoint_gives_its_vision_tower(pretrained: Path):
    encoder = ReferenceEncoder(EncoderConfig(path_or_id=str(pretrained)))
    model = SiglipModel.from_pretrained(pretrained).eval()
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        expected = model.vision_model(images).last_hidden_state
    torch.testing.assert_close(encoder(images), expected)


def test_a_frozen_encoder_has_no_gradient_and_stays_in_eval_mode():
    encoder = ReferenceEncoder(EncoderConfig(**SIZES)).train()
    assert not any(part.training for part in encoder.modules())
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    assert not encoder(torch.rand(1, 3, 32, 32, requires_grad=True)).requires_grad


@pytest.mark.parametrize("source", ["sizes", "pretrained"])
def test_every_weight_of_a_trainable_encoder_gets_a_gradient(pretrained: Path, source: str):
    sizes = SIZES if source == "sizes" else {"path_or_id": str(pretrained)}
    encoder = ReferenceEncoder(EncoderConfig(**sizes, trainable=True))
    assert all(part.training for part in encoder.train().modules())
    encoder(torch.rand(1, 3, 32, 32)).square().sum().backward()
    assert [name for name, parameter in encoder.named_parameters() if parameter.grad is None] == []


def test_sizes_rebuild_the_same_tower_without_its_source(pretrained: Path):
    encoder = ReferenceEncoder(EncoderConfig(path_or_id=str(pretrained), trainable=True))
    again = ReferenceEncoder(encoder.sizes())
    again.load_state_dict(encoder.state_dict())
    images = torch.rand(1, 3, 32, 32)
    torch.testing.assert_close(again(images), encoder(images))
    assert again.config.trainable


def test_sizes_are_known_without_the_weights(pretrained: Path):
    config = EncoderConfig(path_or_id=str(pretrained), trainable=True)
    expected = ReferenceEncoder(config).sizes()
    (pretrained / "model.safetensors").unlink()
    assert encoder_sizes(config) == expected
    assert encoder_sizes(expected) == expected
    with pytest.raises(InputError, match=r"encoder\.path_or_id \(.*\) has no readable config"):
        encoder_sizes(EncoderConfig(path_or_id="/nowhere/siglip"))


def test_sizes_of_a_released_tower_are_known_without_the_hub():
    source = "google/siglip2-giant-opt-patch16-384"
    sizes = encoder_sizes(EncoderConfig(path_or_id=source, trainable=True))
    assert sizes == SIGLIP2_GIANT_384.model_copy(update={"trainable": True})


def test_fingerprint_sees_a_changed_weight_and_not_the_dtype():
    encoder = ReferenceEncoder(EncoderConfig(**SIZES))
    before = encoder.fingerprint()
    assert encoder.to(torch.bfloat16).fingerprint() == before
    next(encoder.parameters()).data[0, 0] += 1
    assert encoder.fingerprint() != before


@pytest.mark.parametrize("shape", [(2, 3, 64, 64), (3, 32, 32), (2, 1, 32, 32)])
def test_images_of_another_size_are_refused(shape):
    with pytest.raises(InputError, match=r"must be \(B, 3, 32, 32\); resize them first"):
        ReferenceEncoder(EncoderConfig(**SIZES))(torch.zeros(shape))


@pytest.mark.parametrize("name", ["/nowhere/siglip", "nobody/nothing-here"])
def test_an_absent_source_is_refused(name: str):
    with pytest.raises(InputError, match=r"encoder.path_or_id \(.*\) does not exist here"):
        ReferenceEncoder(EncoderConfig(path_or_id=name))


def test_a_source_without_weights_is_refused(tmp_path: Path):
    vision_config().save_pretrained(tmp_path)
    with pytest.raises(InputError, match="is no loadable SigLIP vision tower"):
        ReferenceEncoder(EncoderConfig(path_or_id=str(tmp_path)))


def test_settings_are_checked():
    assert EncoderConfig() == EncoderConfig.model_validate(EncoderConfig().model_dump())
    pretrained = EncoderConfig(path_or_id="x")
    assert pretrained == EncoderConfig.model_validate(pretrained.model_dump())
    with pytest.raises(ValidationError, match="image_size comes from path_or_id"):
        EncoderConfig(path_or_id="x", image_size=64)
    with pytest.raises(ValidationError, match="multiple of patch_size"):
        EncoderConfig(image_size=60)
    with pytest.raises(ValidationError, match="multiple of num_heads"):
        EncoderConfig(hidden_size=50)
    with pytest.raises(ValidationError, match="hidden_size"):
        EncoderConfig(hidden_size="wide")
    with pytest.raises(ValidationError, match="Extra inputs"):
        EncoderConfig(size=3)
