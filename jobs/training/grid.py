"""The validation image: references | target | null | i2L from one and from several references."""

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from i2l_model.generation import generate
from i2l_model.images import to_images
from i2l_model.lora import LoraFactors
from jobs.training.config import TrainingConfig
from jobs.training.data import NO_REF, PairStore
from jobs.training.objective import StyleObjective
from jobs.training.sampling import StyleBatch
from jobs.training.validation import Validator, gather_references

_CELL = 96
_GAP = 4
_TEXT = 14
_MAX_CAPTION = 90


@dataclass(frozen=True, slots=True)
class GridRow:
    """One style of the grid.

    Attributes:
        images: One image for each column, None where there is none.
        caption: The prompt.
    """

    images: list[Image.Image | None]
    caption: str


@torch.no_grad()
def validation_grid(
    objective: StyleObjective, validator: Validator, config: TrainingConfig, *, draw: bool
) -> Image.Image | None:
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
    refs_NF = validator.batch.refs_NF[:num_rows]
    store = validator.store
    # More than micro_styles at once would need more memory than training does.
    one = _predict(objective, store, refs_NF[:, :1], config.micro_styles)
    several = _predict(objective, store, refs_NF, config.micro_styles)
    if not draw:
        return None
    columns = {"no LoRA": None, "i2L 1 ref": one, f"i2L {refs_NF.shape[1]} refs": several}
    if refs_NF.shape[1] == 1:
        columns.pop("i2L 1 ref")
    prompts = [store.prompts[row] for row in validator.batch.targets_NK[:num_rows, 0]]
    samples = {
        name: generate(
            objective.backbone,
            prompts,
            lora=lora,
            seeds=list(range(num_rows)),
            num_inference_steps=config.grid_inference_steps,
            height=store.targets_U3SS.shape[-1],
            width=store.targets_U3SS.shape[-1],
        )
        for name, lora in columns.items()
    }
    return draw_grid(*_layout(store, validator.batch, prompts, samples))


def _predict(
    objective: StyleObjective, store: PairStore, refs_NF: np.ndarray, size: int
) -> LoraFactors:
    parts = [
        objective.predict(gather_references(store, refs_NF[start : start + size]))
        for start in range(0, len(refs_NF), size)
    ]
    return LoraFactors.concat(parts)


def _layout(
    store: PairStore,
    batch: StyleBatch,
    prompts: list[str],
    samples: dict[str, list[Image.Image]],
) -> tuple[list[str], list[GridRow]]:
    rows = []
    for n, prompt in enumerate(prompts):
        refs = [None if i == NO_REF else _pixels(store.refs_U3SS[i]) for i in batch.refs_NF[n]]
        target = _pixels(store.targets_U3SS[batch.targets_NK[n, 0]])
        drawn = [images[n] for images in samples.values()]
        rows.append(GridRow([*refs, target, *drawn], prompt))
    headings = [f"ref {i + 1}" for i in range(batch.refs_NF.shape[1])]
    return [*headings, "target", *samples], rows


def _pixels(image_3SS: torch.Tensor) -> Image.Image:
    return to_images(image_3SS[None].float() / 127.5 - 1)[0]


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
