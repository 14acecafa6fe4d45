import json

import pytest

from pipelines.cli.main import run


def _json(capsys, *arguments: str) -> dict:
    assert run(["model-info", "--json", *arguments]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_released_backbone_needs_no_weights(workspace, capsys):
    info = _json(capsys, "--backbone", "z-image")
    assert info["num_targets"] == 238
    assert info["num_queries"] == 7616
    assert info["num_backbone_parameters"] == 6_154_908_736
    assert info["lora_bytes"]["bfloat16"] == 2 * 16 * 2_480_640
    trained = info["num_trained"]
    encoder = info["num_parameters"]["encoder"]
    assert trained == sum(info["num_parameters"].values()) - encoder


def test_the_shipped_predictor_as_text(workspace, capsys):
    assert run(["model-info"]) == 0
    text = capsys.readouterr().out
    assert "predictor version 2 for tiny-zimage" in text
    assert "estimate" in text


@pytest.mark.parametrize(
    "arguments",
    [
        ["--backbone", "sdxl"],
        ["--backbone", "z-image", "--predictor", "x"],
        ["--architecture", "1"],
    ],
)
def test_bad_input_is_one_line(workspace, capsys, arguments):
    assert run(["model-info", *arguments]) == 2
    assert capsys.readouterr().err.startswith("error: ")
