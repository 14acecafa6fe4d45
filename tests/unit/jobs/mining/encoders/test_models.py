"""Model encoders, with tiny checkpoints in the real formats."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModel, SiglipVisionModel

from i2l_model.errors import InputError
from jobs.mining.config import EncoderConfig
from jobs.mining.encoders import REGISTRY, encoder_entry, load_encoder
from jobs.mining.encoders.checkpoints import checkpoint_folder, checkpoint_hash
from jobs.mining.encoders.preprocessing import Preprocess, read_preprocess
from tests import tiny_checkpoints

MAKERS: dict[str, Callable] = {
    "csd": tiny_checkpoints.csd,
    "megastyle": tiny_checkpoints.siglip,
    "siglip2": tiny_checkpoints.siglip,
    "dinov2": tiny_checkpoints.dinov2,
}


def pictures(count: int = 5) -> list[Image.Image]:
    rng = np.random.default_rng(1)
    return [
        Image.fromarray(rng.integers(0, 256, (60 + 9 * number, 80, 3), dtype=np.uint8))
        for number in range(count)
    ]


def crops(name: str, folder: Path) -> list[np.ndarray]:
    preprocess = Preprocess.clip(224) if name == "csd" else read_preprocess("x", folder)
    return [preprocess.crop(image) for image in pictures()]


@pytest.mark.parametrize("name", MAKERS)
def test_vectors_are_unit_and_batching_changes_nothing(name: str, tmp_path: Path) -> None:
    MAKERS[name](tmp_path)
    encoder = load_encoder(EncoderConfig(name=name, path=str(tmp_path)))
    images = crops(name, tmp_path)
    together = encoder(images, [""] * len(images))
    assert together.dtype == np.float32
    assert np.linalg.norm(together, axis=1) == pytest.approx(1, abs=1e-5)
    single = np.concatenate([encoder([image], [""]) for image in images])
    assert np.abs(together - single).max() < 1e-5
    assert np.abs(together[0] - together[1]).max() > 1e-4


@pytest.mark.parametrize("prefix", ["", "module."])
def test_csd_is_the_released_network(prefix: str, tmp_path: Path) -> None:
    module = tiny_checkpoints.csd(tmp_path, prefix)
    encoder = load_encoder(EncoderConfig(name="csd", path=str(tmp_path)))
    images = crops("csd", tmp_path)
    with torch.no_grad():
        expected = module(Preprocess.clip(224).tensor(images)).numpy()
    assert np.abs(encoder(images, [""] * 5) - expected).max() < 1e-5


def test_towers_are_those_of_transformers(tmp_path: Path) -> None:
    for name, maker in (
        ("siglip2", tiny_checkpoints.siglip),
        ("dinov2", tiny_checkpoints.dinov2),
    ):
        folder = maker(tmp_path / name)
        images = crops(name, folder)
        kind = SiglipVisionModel if name == "siglip2" else AutoModel
        model = kind.from_pretrained(folder)
        with torch.no_grad():
            expected = model(read_preprocess("x", folder).tensor(images)).pooler_output
        expected = torch.nn.functional.normalize(expected, dim=-1).numpy()
        encoder = load_encoder(EncoderConfig(name=name, path=str(folder)))
        assert np.abs(encoder(images, [""] * 5) - expected).max() < 1e-5


def test_half_precision_is_near(tmp_path: Path) -> None:
    tiny_checkpoints.dinov2(tmp_path)
    images = crops("dinov2", tmp_path)
    encoders = [
        load_encoder(EncoderConfig(name="dinov2", path=str(tmp_path), dtype=dtype))
        for dtype in ("float32", "bfloat16")
    ]
    full, half = (encoder(images, [""] * 5) for encoder in encoders)
    assert np.sum(full * half, axis=1) == pytest.approx(1, abs=1e-2)
    assert (full != half).any()


def test_captions_join_in_by_weight_and_lose_their_style(tmp_path: Path) -> None:
    image_folder = tiny_checkpoints.dinov2(tmp_path / "image")
    text_folder = tiny_checkpoints.clip(tmp_path / "text")
    config = EncoderConfig(
        name="dinov2", path=str(image_folder), text_path=str(text_folder), text_weight=0.25
    )
    encoder = load_encoder(config)
    images = [crops("dinov2", image_folder)[0]] * 4
    captions = ["a dog on the beach", "a watercolor painting of a dog on the beach", "a cat", ""]
    dog, painted, cat, silent = encoder(images, captions)
    assert dog == pytest.approx(painted, abs=1e-6)
    assert dog @ dog == pytest.approx(1, abs=1e-5)
    assert 0.5 < dog @ cat < 1 - 1e-4
    assert dog @ silent == pytest.approx(np.sqrt(0.75), abs=1e-5)


def test_settings_that_do_not_fit_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="model without a path"):
        encoder_entry(EncoderConfig(name="csd"), "style")
    with pytest.raises(InputError, match="takes no path"):
        encoder_entry(EncoderConfig(name="offline-style", path="x"), "style")
    with pytest.raises(InputError, match="text_path"):
        encoder_entry(EncoderConfig(name="csd", path="x", text_path="y"), "style")
    with pytest.raises(InputError, match="no known content encoder"):
        encoder_entry(EncoderConfig(name="csd", path="x"), "content")


@pytest.mark.parametrize("name", [name for name, entry in REGISTRY.items() if entry.is_model])
def test_what_is_not_there_or_of_another_kind_is_one_line(name: str, tmp_path: Path) -> None:
    field = f"mining.{REGISTRY[name].kind}_encoder.path"
    (tmp_path / "pickled").mkdir()
    (tmp_path / "pickled" / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    other = tiny_checkpoints.classifier(tmp_path / "other", ("a", "b"))
    if name == "dinov2":  # any model with a class token is one; a CLIP model has no such output
        (other / "config.json").write_text('{"model_type": "nothing"}')
    for place in (tmp_path / "none", tmp_path / "pickled", other, "someone/none"):
        with pytest.raises(InputError) as caught:
            load_encoder(EncoderConfig(name=name, path=str(place)))
        assert caught.value.field == field
        assert "\n" not in str(caught.value)


def test_a_gpu_that_is_not_there_is_named(tmp_path: Path) -> None:
    tiny_checkpoints.dinov2(tmp_path)
    config = EncoderConfig(name="dinov2", path=str(tmp_path), workers={"device": "cuda"})
    with pytest.raises(InputError, match=r"content_encoder\.workers\.device \(cuda\)"):
        load_encoder(config)


def test_identity_follows_the_weights_and_not_the_place(tmp_path: Path) -> None:
    first = tiny_checkpoints.siglip(tmp_path / "a", seed=0)
    same = tiny_checkpoints.siglip(tmp_path / "b", seed=0)
    other = tiny_checkpoints.siglip(tmp_path / "c", seed=1)
    assert checkpoint_hash(first) == checkpoint_hash(same) != checkpoint_hash(other)
    assert checkpoint_folder("x", str(first)) == first
