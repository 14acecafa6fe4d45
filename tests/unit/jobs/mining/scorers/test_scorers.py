"""Scorers, with tiny checkpoints in the real formats."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import CLIPVisionModelWithProjection, ViTForImageClassification

from i2l_model.errors import InputError
from jobs.mining.config import ScorerConfig
from jobs.mining.encoders.preprocessing import read_preprocess
from jobs.mining.scorers import load_scorer
from tests import tiny_checkpoints


def images(count: int = 3) -> list[np.ndarray]:
    side = tiny_checkpoints.SIDE
    return list(np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8))


def test_probability_of_the_positive_label(tmp_path: Path) -> None:
    tiny_checkpoints.classifier(tmp_path, ("clean", "Watermark"))
    scores = load_scorer("watermark", ScorerConfig(source=str(tmp_path)))(images())
    model = ViTForImageClassification.from_pretrained(tmp_path)
    with torch.no_grad():
        logits = model(read_preprocess("x", tmp_path).tensor(images())).logits
    assert scores == pytest.approx(logits.softmax(dim=1)[:, 1].numpy(), abs=1e-6)
    clean = ScorerConfig(source=str(tmp_path), positive_label="clean")
    assert load_scorer("watermark", clean)(images()) == pytest.approx(1 - scores, abs=1e-6)


def test_an_unknown_label_is_named_with_the_known_ones(tmp_path: Path) -> None:
    tiny_checkpoints.classifier(tmp_path, ("safe", "unsafe"))
    with pytest.raises(InputError, match="safe, unsafe") as caught:
        load_scorer("nsfw", ScorerConfig(source=str(tmp_path)))
    assert caught.value.field == "mining.scorers.nsfw.positive_label"


def test_aesthetic_classifiers_and_regressions(tmp_path: Path) -> None:
    tiny_checkpoints.classifier(tmp_path / "two", ("plain", "aesthetic"))
    scores = load_scorer("aesthetic", ScorerConfig(source=str(tmp_path / "two")))(images())
    assert ((scores > 0) & (scores < 10)).all()
    tiny_checkpoints.classifier(tmp_path / "one", ("score",))
    scores = load_scorer("aesthetic", ScorerConfig(source=str(tmp_path / "one")))(images())
    model = ViTForImageClassification.from_pretrained(tmp_path / "one")
    with torch.no_grad():
        logits = model(read_preprocess("x", tmp_path / "one").tensor(images())).logits
    assert scores == pytest.approx(logits[:, 0].numpy(), abs=1e-6)


@pytest.mark.parametrize("is_linear", [True, False])
def test_aesthetic_head_on_clip(is_linear: bool, tmp_path: Path) -> None:
    folder = tiny_checkpoints.clip(tmp_path / "clip")
    torch.manual_seed(0)
    first, last = torch.nn.Linear(16, 4), torch.nn.Linear(16 if is_linear else 4, 1)
    layers = {"": last} if is_linear else {"layers.2.": first, "layers.10.": last}
    state = {
        f"{name}{kind}": getattr(layer, kind).detach().clone()
        for name, layer in layers.items()
        for kind in ("weight", "bias")
    }
    save_file(state, tmp_path / "head.safetensors")
    config = ScorerConfig(source=str(folder), head=str(tmp_path / "head.safetensors"))
    scores = load_scorer("aesthetic", config)(images())
    model = CLIPVisionModelWithProjection.from_pretrained(folder)
    with torch.no_grad():
        embeds = model(read_preprocess("x", folder).tensor(images())).image_embeds
        expected = torch.nn.functional.normalize(embeds, dim=-1)
        expected = last(expected if is_linear else first(expected))[:, 0]
    assert scores == pytest.approx(expected.numpy(), abs=1e-5)


def test_heads_that_do_not_fit_are_named(tmp_path: Path) -> None:
    folder = tiny_checkpoints.clip(tmp_path / "clip")
    path = tmp_path / "head.safetensors"
    for width, outputs, problem in ((5, 1, "the CLIP model has 16"), (16, 2, "no aesthetic head")):
        save_file({"weight": torch.zeros(outputs, width), "bias": torch.zeros(outputs)}, path)
        with pytest.raises(InputError, match=problem) as caught:
            load_scorer("aesthetic", ScorerConfig(source=str(folder), head=str(path)))
        assert caught.value.field == "mining.scorers.aesthetic.head"
    with pytest.raises(InputError, match="no safetensors file"):
        load_scorer("aesthetic", ScorerConfig(source=str(folder), head=str(tmp_path / "x.pth")))
