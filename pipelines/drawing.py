"""Pictures of prompts with and without a style, and a grid of both."""

import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from i2l_model.atomic import open_atomic
from i2l_model.backbones.base import Backbone
from i2l_model.errors import InputError
from i2l_model.generation import generate
from i2l_model.guidance import Guidance
from i2l_model.images import fit_square
from i2l_model.lora.factors import LoraFactors

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
    backbone: Backbone,
    lora: LoraFactors,
    neutral_lora: LoraFactors | None,
    references: Sequence[Image.Image],
    folder: Path,
) -> list[Path]:
    """Write for every prompt the styled and the unstyled picture, and a grid of all.

    Args:
        drawing: What to draw.
        backbone: The text-to-image model.
        lora: The style, one LoRA.
        neutral_lora: That of the negative branch for "neutral_negative", else None.
        references: Images to show at the top of the grid; may be empty.
        folder: Where to write; it is made.

    Returns:
        The files, the grid last.

    Raises:
        InputError: If a file cannot be written, or the LoRA does not fit the backbone; no picture
            is written then.
    """
    stems = [f"{number:03d}-{_slug(prompt)}" for number, prompt in enumerate(drawing.prompts)]
    names = [f"{stem}{suffix}.png" for stem in stems for suffix in ("", "-unstyled")]
    files = [folder / name for name in (*names, "grid.png")]
    _check_writable(folder, files)
    styled, plain = styled_and_plain(drawing, backbone, lora, neutral_lora)
    pairs = [image for pair in zip(styled, plain, strict=True) for image in pair]
    rows = [("references", list(references))] if references else []
    rows += [("with the style", styled), ("without", plain)]
    for file, image in zip(files, [*pairs, _grid(rows)], strict=True):
        with open_atomic(file, field="--output") as stream:
            image.save(stream, "PNG")
    return files


def _check_writable(folder: Path, files: Sequence[Path]) -> None:
    """Make the folder and refuse one that cannot take the files, before time is spent on them."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        problem = f"cannot be written: {error.strerror}"
        raise InputError("--output", folder, problem, "name another folder") from error
    for file in files:
        if file.is_dir():
            raise InputError("--output", file, "is a folder", "name another --output or move it")


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
        square = fit_square(image, min(image.size))
        return square.resize((_TILE, _TILE), Image.Resampling.NEAREST)
    return fit_square(image, _TILE)


def _slug(prompt: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", prompt.lower()).strip("-")[:40].strip("-") or "prompt"
