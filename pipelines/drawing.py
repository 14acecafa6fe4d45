"""Pictures of prompts with and without a style, and a grid of both."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from i2l_model.backbones.base import Backbone
from i2l_model.errors import InputError
from i2l_model.generation import generate
from i2l_model.guidance import Guidance
from i2l_model.images import fit_square
from i2l_model.lora.factors import LoraFactors
from pipelines.devices import load_for_inference

_TILE = 192
_GAP = 8
_LABEL_HEIGHT = 20


@dataclass(frozen=True)
class Drawing:
    """What to draw.

    Attributes:
        prompts: One picture each.
        seed: Seed of the starting noise, the same for all prompts.
        num_inference_steps: Sampling steps.
        guidance_scale: Classifier-free guidance; 1 is off.
        guidance: What the styled pictures' negative branch carries, see `generate`.
    """

    prompts: tuple[str, ...]
    seed: int
    num_inference_steps: int
    guidance_scale: float
    guidance: Guidance


def styled_and_plain(
    drawing: Drawing, backbone: Backbone, lora: LoraFactors, neutral_lora: LoraFactors | None
) -> tuple[list[Image.Image], list[Image.Image]]:
    """Return the picture of every prompt with the style, and those without.

    Args:
        drawing: What to draw.
        backbone: The text-to-image model.
        lora: The style, one LoRA.
        neutral_lora: That of the negative branch for "neutral_negative", else None.

    Raises:
        InputError: If an argument is out of range, or the LoRA does not fit the backbone.
    """
    seeds = [drawing.seed] * len(drawing.prompts)
    plain = partial(
        generate,
        backbone,
        drawing.prompts,
        seeds=seeds,
        num_inference_steps=drawing.num_inference_steps,
        guidance_scale=drawing.guidance_scale,
    )
    styled = partial(plain, lora=lora, guidance=drawing.guidance, negative_lora=neutral_lora)
    return styled(), plain()


def draw(
    drawing: Drawing,
    backbone: str,
    lora: LoraFactors,
    neutral_lora: LoraFactors | None,
    references: Sequence[Image.Image],
    folder: Path,
) -> list[Path]:
    """Write for every prompt the styled and the unstyled picture, and a grid of all.

    Args:
        drawing: What to draw.
        backbone: Name or folder of the text-to-image model.
        lora: The style, one LoRA.
        neutral_lora: That of the negative branch for "neutral_negative", else None.
        references: Images to show at the top of the grid; may be empty.
        folder: Where to write; it is made.

    Returns:
        The files, the grid last.

    Raises:
        InputError: If the folder cannot be written or the LoRA does not fit the backbone.
    """
    styled, plain = styled_and_plain(drawing, load_for_inference(backbone), lora, neutral_lora)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            "--output", folder, f"cannot be made: {error.strerror}", "name another"
        ) from None
    files = []
    for number, prompt in enumerate(drawing.prompts):
        stem = f"{number:03d}-{_slug(prompt)}"
        for image, suffix in ((styled[number], ""), (plain[number], "-unstyled")):
            files.append(folder / f"{stem}{suffix}.png")
            image.save(files[-1])
    rows = [("references", list(references))] if references else []
    rows += [("with the style", styled), ("without", plain)]
    files.append(folder / "grid.png")
    _grid(rows).save(files[-1])
    return files


def _grid(rows: Sequence[tuple[str, Sequence[Image.Image]]]) -> Image.Image:
    """Lay out labelled rows of images; small images are enlarged without smoothing."""
    num_columns = max(len(images) for _, images in rows)
    step = _TILE + _GAP
    row_height = _LABEL_HEIGHT + step
    canvas = Image.new(
        "RGB", (num_columns * step + _GAP, len(rows) * row_height + _GAP), (255, 255, 255)
    )
    pen = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(size=13)
    for number, (label, images) in enumerate(rows):
        top = _GAP + number * row_height
        pen.text((_GAP, top), label, fill=(60, 60, 60), font=font)
        for column, image in enumerate(images):
            place = (_GAP + column * step, top + _LABEL_HEIGHT)
            canvas.paste(_tile(image), place)
    return canvas


def _tile(image: Image.Image) -> Image.Image:
    if max(image.size) < _TILE:
        return image.resize((_TILE, _TILE), Image.Resampling.NEAREST)
    return fit_square(image, _TILE)


def _slug(prompt: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", prompt.lower()).strip("-")[:40].strip("-") or "prompt"
