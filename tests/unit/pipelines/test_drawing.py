import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from i2l_model.backbones import load_backbone
from i2l_model.errors import InputError
from i2l_model.generation import generate
from pipelines.drawing import _tile


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"guidance_scale": math.inf}, r"guidance_scale \(inf\) must be >= 1 and finite"),
        ({"seeds": [-1]}, r"seeds \(-1\) must be in"),
        ({"seeds": [2**63]}, r"seeds \(9223372036854775808\) must be in"),
        ({"height": 0}, r"height \(0\) must be"),
    ],
)
def test_what_cannot_be_drawn_is_named(
    options: Mapping[str, Any], message: str, backbone_folder: Path
) -> None:
    arguments = {"seeds": [0], "num_inference_steps": 1, **options}
    with pytest.raises(InputError, match=message):
        generate(load_backbone(backbone_folder), ["a house"], **arguments)


def test_a_small_picture_is_cropped_to_a_square_before_it_is_enlarged() -> None:
    picture = Image.new("RGB", (4, 8), "red")
    picture.paste("blue", (0, 4, 4, 8))
    picture.paste("green", (0, 0, 4, 2))
    tile = _tile(picture)
    assert tile.size == (192, 192)
    assert [tile.getpixel((96, y)) for y in (0, 95, 96, 191)] == [
        (255, 0, 0), (255, 0, 0), (0, 0, 255), (0, 0, 255)
    ]  # fmt: skip
