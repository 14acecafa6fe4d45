from pathlib import Path

import pytest
import torch
from PIL import Image

from i2l_model.backbones import load_backbone
from i2l_model.backbones.tiny import build_tiny_zimage
from i2l_model.predictor import LoraPredictor, PredictorConfig
from i2l_model.tower_config import EncoderConfig


@pytest.fixture(scope="session")
def backbone_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backbone with random weights."""
    folder = tmp_path_factory.mktemp("backbone") / "random-zimage"
    build_tiny_zimage(0, folder)
    return folder


@pytest.fixture(scope="session")
def predictor_folder(backbone_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A predictor with random weights for that backbone, whose LoRAs do change pictures."""
    backbone = load_backbone(backbone_folder)
    encoder = EncoderConfig(image_size=32, patch_size=16, hidden_size=32, num_layers=1, num_heads=2)
    config = PredictorConfig(
        backbone=backbone.name, targets=backbone.lora_targets(), rank=2, dim=32, depth=1,
        num_heads=2, compress_dim=8, encoder=encoder, max_refs=3,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        predictor = LoraPredictor.build(config)
        for parameter in predictor.heads.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
    folder = tmp_path_factory.mktemp("predictor")
    predictor.save_pretrained(folder)
    return folder


@pytest.fixture
def references(tmp_path: Path) -> list[str]:
    """Three flat pictures of different colours and sizes."""
    folder = tmp_path / "references"
    folder.mkdir()
    paths = []
    for number, colour in enumerate([(200, 40, 30), (20, 60, 200), (240, 220, 90)]):
        paths.append(str(folder / f"{number}.png"))
        Image.new("RGB", (48 + 16 * number, 64), colour).save(paths[-1])
    return paths
