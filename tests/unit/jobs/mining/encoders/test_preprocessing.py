"""Crops and tensors are those of the models' own image processors."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from transformers import BitImageProcessorPil, CLIPImageProcessorPil, SiglipImageProcessorPil

from i2l_model.errors import InputError
from jobs.mining.encoders.preprocessing import Preprocess, read_preprocess

WINDOW = {"height": 28, "width": 28}
PROCESSORS = {
    "clip": CLIPImageProcessorPil(size={"shortest_edge": 28}, crop_size=WINDOW),
    "bit": BitImageProcessorPil(size={"shortest_edge": 37}, crop_size=WINDOW),
    "siglip": SiglipImageProcessorPil(size={"height": 28, "width": 24}),
    "bilinear": SiglipImageProcessorPil(size=WINDOW, resample=2, do_normalize=False),
}


def picture(width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("name", PROCESSORS)
@pytest.mark.parametrize("size", [(64, 64), (101, 57), (57, 101), (28, 28), (20, 31)])
def test_equals_the_own_processor(name: str, size: tuple[int, int], tmp_path: Path) -> None:
    PROCESSORS[name].save_pretrained(tmp_path)
    preprocess = read_preprocess("encoder", tmp_path)
    image = picture(*size)
    expected = PROCESSORS[name](images=image, return_tensors="pt")["pixel_values"]
    found = preprocess.tensor([preprocess.crop(image)])
    assert found.shape == expected.shape
    assert (found - expected).abs().max() < 1e-5


def test_clip_is_the_published_default() -> None:
    image = picture(300, 260)
    expected = CLIPImageProcessorPil()(images=image, return_tensors="pt")["pixel_values"]
    preprocess = Preprocess.clip(224)
    assert (preprocess.tensor([preprocess.crop(image)]) - expected).abs().max() < 1e-5


def test_old_configs_have_plain_numbers(tmp_path: Path) -> None:
    settings = {"size": 32, "crop_size": 28, "do_center_crop": True}
    settings |= {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    crop = read_preprocess("encoder", tmp_path).crop
    assert (crop.height, crop.width, crop.shortest_edge) == (28, 28, 32)


@pytest.mark.parametrize(
    "settings",
    [
        None,
        "no json",
        {"size": {"shortest_edge": 32}, "image_mean": [0, 0, 0], "image_std": [1, 1, 1]},
        {"size": 32, "image_mean": [0, 0, 0], "image_std": [1, 1, 0]},
        {"size": 32, "do_resize": False, "image_mean": [0, 0, 0], "image_std": [1, 1, 1]},
        {"size": 32, "do_center_crop": True, "image_mean": [0] * 3, "image_std": [1] * 3},
    ],
)
def test_other_processors_are_refused(settings: object, tmp_path: Path) -> None:
    if settings is not None:
        text = settings if isinstance(settings, str) else json.dumps(settings)
        (tmp_path / "preprocessor_config.json").write_text(text)
    with pytest.raises(InputError) as caught:
        read_preprocess("mining.style_encoder.path", tmp_path)
    assert caught.value.field == "mining.style_encoder.path"
