"""The validation image, references | target | null | i2L, and how near its styles are."""

# N styles, F references, S pixels

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from PIL import Image, ImageDraw, ImageFont

from i2l_model.generation import generate
from i2l_model.images import to_images
from i2l_model.lora import LoraFactors
from jobs.evaluation.metrics.colour import stack_images
from jobs.evaluation.metrics.patches import reference_distances, set_quantiles
from jobs.training.config import TrainingConfig
from jobs.training.objective import References, StyleObjective
from jobs.training.validation import Validator

_CELL = 96
_GAP = 4
_TEXT = 14
_MAX_CAPTION = 90
_NULL, _ONE = "no LoRA", "i2L 1 ref"


@dataclass(frozen=True, slots=True)
class GridRow:
    """One style of the grid.

    Attributes:
        images: One image for each column, None where there is none.
        caption: The prompt.
    """

    images: list[Image.Image | None]
    caption: str


@dataclass(frozen=True, slots=True)
class Grid:
    """What was drawn.

    Attributes:
        image: The picture.
        style: Style distances of the drawn images to their references, without and with the LoRA,
            and the share of the distance that the LoRA closes, as metrics.
    """

    image: Image.Image
    style: dict[str, float]


@torch.no_grad()
def validation_grid(
    objective: StyleObjective, validator: Validator, config: TrainingConfig, *, draw: bool
) -> Grid | None:
    """Sample the first validation styles; all ranks call it together.

    Args:
        objective: The predictor, with the weights to show, and the backbone.
        validator: Chooses the styles.
        config: Rows and sampling steps.
        draw: Whether this rank draws; the others only take part in the prediction.
    """
    num_rows = min(config.grid_styles, len(validator.batch))
    if not num_rows:
        return None
    references = validator.references.rows(range(num_rows))
    # More than micro_styles at once would need more memory than training does.
    one = _predict(objective, references.first(), config.micro_styles)
    several = _predict(objective, references, config.micro_styles)
    if not draw:
        return None
    num_refs = references.mask_NF.shape[1]
    columns = {_NULL: None, _ONE: one, f"i2L {num_refs} refs": several}
    if num_refs == 1:
        columns.pop(_ONE)
    samples = {
        name: _draw(objective, validator, config, lora, num_rows) for name, lora in columns.items()
    }
    rows = _rows(validator, samples, num_rows)
    headings = [*(f"ref {i + 1}" for i in range(num_refs)), "target", *samples]
    return Grid(draw_grid(headings, rows), _style_metrics(references, samples))


def _predict(objective: StyleObjective, references: References, size: int) -> LoraFactors:
    num_styles = len(references.mask_NF)
    starts = range(0, num_styles, size)
    parts = [range(start, min(num_styles, start + size)) for start in starts]
    return LoraFactors.concat([objective.predict(references.rows(part)) for part in parts])


def _draw(
    objective: StyleObjective,
    validator: Validator,
    config: TrainingConfig,
    lora: LoraFactors | None,
    num_rows: int,
) -> list[Image.Image]:
    """An image of each row's first target prompt, at that target's size."""
    drawn: dict[int, Image.Image] = {}
    targets = validator.batch.targets_NK[:num_rows, 0].tolist()
    for members in validator.loader.by_bucket(targets, range(num_rows)):
        width, height = validator.loader.buckets.size(targets[members[0]])
        images = generate(
            objective.backbone,
            [validator.loader.index.prompt(targets[n]) for n in members],
            lora=None if lora is None else lora.select(members),
            seeds=members,
            num_inference_steps=config.grid_inference_steps,
            height=height,
            width=width,
        )
        drawn |= dict(zip(members, images, strict=True))
    return [drawn[n] for n in range(num_rows)]


def _rows(
    validator: Validator, samples: Mapping[str, list[Image.Image]], num_rows: int
) -> list[GridRow]:
    references, rows = validator.references, []
    assert references.images_NF3SS is not None, "validation keeps the images"
    for n in range(num_rows):
        present = zip(references.images_NF3SS[n], references.mask_NF[n], strict=True)
        refs = [_pixels(image) if there else None for image, there in present]
        row = int(validator.batch.targets_NK[n, 0])
        target = _pixels(validator.loader.target_images([row])[0])
        drawn = [images[n] for images in samples.values()]
        rows.append(GridRow([*refs, target, *drawn], validator.loader.index.prompt(row)))
    return rows


def _style_metrics(
    references: References, samples: Mapping[str, list[Image.Image]]
) -> dict[str, float]:
    """Mean distances over the rows, of the samples from all references and of those without."""
    assert references.images_NF3SS is not None, "validation keeps the images"
    *_, several = samples
    means = {}
    for name in (_NULL, several):
        distances = []
        for n, image in enumerate(samples[name]):
            own = references.images_NF3SS[n][references.mask_NF[n]].float() / 255
            distances += reference_distances(stack_images([image]), set_quantiles(own))
        means[name] = sum(distances) / len(distances)
    return {
        "val/style_distance_null": means[_NULL],
        "val/style_distance": means[several],
        "val/style_closed": 1 - means[several] / max(means[_NULL], 1e-9),
    }


def _pixels(image_3HW: torch.Tensor) -> Image.Image:
    return to_images(image_3HW[None].float() / 127.5 - 1)[0]


def draw_grid(headings: list[str], rows: list[GridRow]) -> Image.Image:
    """Lay out labelled rows of images on white."""
    row_height = _CELL + _TEXT + 2 * _GAP
    width = _GAP + len(headings) * (_CELL + _GAP)
    canvas = Image.new("RGB", (width, _TEXT + 2 * _GAP + len(rows) * row_height), "white")
    pen = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(size=11)
    lefts = [_GAP + column * (_CELL + _GAP) for column in range(len(headings))]
    for left, heading in zip(lefts, headings, strict=True):
        pen.text((left, _GAP), heading, fill="black", font=font)
    for index, row in enumerate(rows):
        top = _TEXT + 2 * _GAP + index * row_height
        for left, image in zip(lefts, row.images, strict=True):
            if image is not None:
                cell = image.resize((_CELL, _CELL), Image.Resampling.BICUBIC)
                canvas.paste(cell, (left, top))
        caption = row.caption[:_MAX_CAPTION]
        pen.text((_GAP, top + _CELL + 1), caption, fill="#555555", font=font)
    return canvas
