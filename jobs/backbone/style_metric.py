"""Fits the shipped style metric of the offline miner on drawn styles.

    python -m jobs.backbone.style_metric OUTPUT

Takes a few minutes. The styles leave out the kinds in ``WITHOUT``, so that grids with all kinds
show what the metric makes of looks that it never saw. Each style is there twice, as drawn and as
a style of JPEG files of mixed quality, since compression is no matter of style.
"""

import io
import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from jobs.corpus.families import FamilyConfig
from jobs.corpus.stylegrid import CorpusConfig, drawn_images
from jobs.mining.style_metric import StyleMetric, fit_metric
from jobs.mining.style_statistics import statistics

logger = logging.getLogger(__name__)

WITHOUT = ("background:dots", "medium:halftone", "shading:rim", "texture:crosshatch")
GRIDS = (
    CorpusConfig(
        num_styles=360, images_per_style=8, seed=102, families=FamilyConfig(without=WITHOUT)
    ),
    CorpusConfig(
        num_styles=120,
        images_per_style=8,
        size=128,
        seed=103,
        families=FamilyConfig(without=WITHOUT),
    ),
)
JPEG_QUALITY = (75, 95)
_CHUNK = 32


def train_style_metric(grids: tuple[CorpusConfig, ...] = GRIDS) -> StyleMetric:
    """Draw the grids and fit the metric; styles of two grids are never the same."""
    values, styles = [], []
    for number, grid in enumerate(grids):
        for start, (labels, images) in enumerate(_batches(grid)):
            rng = np.random.default_rng([grid.seed, start])
            for kind, pictures in enumerate((images, [_as_jpeg(i, rng) for i in images])):
                values.append(statistics(pictures))
                styles += [(2 * number + kind, label) for label in labels]
        logger.info("grid %d of %d is measured", number + 1, len(grids))
    _, classes = np.unique(np.array(styles), axis=0, return_inverse=True)
    return fit_metric(np.concatenate(values), classes.ravel())


def _batches(grid: CorpusConfig) -> Iterator[tuple[list[int], list[NDArray[np.uint8]]]]:
    labels: list[int] = []
    images: list[NDArray[np.uint8]] = []
    for label, image in drawn_images(grid):
        labels.append(label)
        images.append(image)
        if len(images) == _CHUNK:
            yield labels, images
            labels, images = [], []
    if images:
        yield labels, images


def _as_jpeg(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    low, high = JPEG_QUALITY
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="JPEG", quality=int(rng.integers(low, high + 1)))
    return np.asarray(Image.open(buffer))


def main() -> None:
    """Write ``model.safetensors`` and, in ``config.json``, what it was fitted on."""
    logging.basicConfig(level=logging.INFO)
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    train_style_metric().save(folder)
    described = {"grids": [g.model_dump(mode="json") for g in GRIDS], "jpeg_quality": JPEG_QUALITY}
    (folder / "config.json").write_text(json.dumps(described, indent=2) + "\n")


if __name__ == "__main__":
    main()
