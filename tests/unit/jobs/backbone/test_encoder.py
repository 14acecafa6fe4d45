from pathlib import Path

import numpy as np
import pytest
import torch

from i2l_model.encoder import ReferenceEncoder
from i2l_model.tower_config import EncoderConfig
from jobs.backbone.dataset import RenderedImages
from jobs.backbone.encoder import ENCODER_FIT, local_descriptors, save_encoder, train_encoder
from jobs.mining.filter_bank import NUM_ORIENTATIONS, SCALES
from jobs.mining.perception import SIDE
from jobs.progress import NullProgress

NUM_FILTERS = len(SCALES) * NUM_ORIENTATIONS


def waves(cycles_per_pixel: float) -> np.ndarray:
    """Vertical stripes of one frequency, gray."""
    light = 127.5 + 60 * np.sin(2 * np.pi * cycles_per_pixel * np.arange(SIDE))
    return np.broadcast_to(light[None, :, None], (SIDE, SIDE, 3)).round().astype(np.uint8)


@pytest.mark.parametrize("scale", range(len(SCALES)))
def test_the_filter_of_a_wave_answers_it_most(scale: int) -> None:
    image = torch.from_numpy(waves(SCALES[scale]).copy())[None]
    energies = local_descriptors(image, 8)[0, :, :NUM_FILTERS].mean(0)
    assert int(energies.argmax()) == scale * NUM_ORIENTATIONS  # orientation 0: along x


def test_colour_is_told_where_it_is() -> None:
    image = np.zeros((1, SIDE, SIDE, 3), np.uint8)
    image[:, :, SIDE // 2 :] = 255
    lightness = local_descriptors(torch.from_numpy(image), 8)[0, :, NUM_FILTERS].view(8, 8)
    assert lightness[:, :4].abs().max() < 0.01
    assert (lightness[:, 4:] - 1).abs().max() < 0.01


def test_training_learns_and_the_saved_tower_loads(tmp_path: Path) -> None:
    kinds = [waves(scale) for scale in SCALES] + [np.full((SIDE, SIDE, 3), 200, np.uint8)]
    data = RenderedImages(np.stack(kinds), np.zeros(len(kinds), np.int64), [""] * len(kinds))
    config = ENCODER_FIT.model_copy(update={"steps": 50, "batch_size": 8, "warmup_steps": 5})
    encoder = train_encoder(data, tmp_path / "work", NullProgress(), config)
    lines = (tmp_path / "work" / "encoder.jsonl").read_text().splitlines()
    first, last = (float(line.split('"loss": ')[1].split(",")[0]) for line in (lines[0], lines[-1]))
    assert last < 0.7 * first

    images = data.images(torch.arange(2))
    with torch.no_grad():
        expected = encoder(images)
    save_encoder(encoder, tmp_path / "tower")
    loaded = ReferenceEncoder(EncoderConfig(path_or_id=str(tmp_path / "tower"), trainable=True))
    with torch.no_grad():
        torch.testing.assert_close(loaded(images), expected, atol=0.02, rtol=0.02)
