import logging

import pytest
from pydantic import ValidationError

from i2l_model.errors import InputError
from i2l_model.lora.factors import LoraTarget
from i2l_model.predictor_config import PredictorConfig
from i2l_model.tower_config import EncoderConfig

SETTINGS = {
    "backbone": "random-zimage",
    "targets": (LoraTarget("layers.0.attention.to_q", 48, 48),),
    "rank": 4,
    "dim": 24,
    "depth": 2,
    "num_heads": 2,
    "compress_dim": 8,
    "encoder": EncoderConfig(),
}


def test_config_survives_json():
    config = PredictorConfig(**SETTINGS)
    assert PredictorConfig.model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_heads": 5}, r"dim \(24\) must be a multiple of num_heads \(5\)"),
        ({"queries_per_factor": 3}, r"rank \(4\) must be a multiple of queries_per_factor \(3\)"),
        ({"rank": 64}, r"rank \(64\) must be <= min\(in, out\) \(48\) for 'layers.0"),
        ({"targets": ()}, "at least 1 item"),
        ({"targets": SETTINGS["targets"] * 2}, "holds a layer twice"),
        ({"version": 3}, "version"),
        ({"lora_scale": float("nan")}, "lora_scale"),
        ({"alpha": 4}, "Extra inputs"),
    ],
)
def test_impossible_settings_are_refused(change, message):
    with pytest.raises(ValidationError, match=message):
        PredictorConfig(**{**SETTINGS, **change})


def test_a_backbone_needs_the_layers(backbone):
    PredictorConfig(**SETTINGS).check_backbone(backbone)
    wide = (LoraTarget("layers.0.attention.to_q", 192, 192),)
    config = PredictorConfig(**{**SETTINGS, "targets": wide, "backbone": "tiny-zimage"})
    with pytest.raises(
        InputError, match="use the backbone the predictor was made for: tiny-zimage"
    ):
        config.check_backbone(backbone)


def test_a_backbone_of_another_name_passes_with_a_warning(backbone, caplog):
    with caplog.at_level(logging.WARNING):
        PredictorConfig(**{**SETTINGS, "backbone": "other"}).check_backbone(backbone)
    assert "made for backbone other and is used with random-zimage" in caplog.text
