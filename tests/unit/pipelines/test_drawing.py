import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from i2l_model.backbones import load_backbone
from i2l_model.errors import InputError
from i2l_model.generation import generate


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
