"""Pictures of the report: one row a style, one column a condition, one grid a prompt."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from i2l_model.images import decode_image, fit_square
from jobs.evaluation.chunk import ChunkPlan, ChunkResult
from jobs.evaluation.conditions import NULL, STYLE_LORA, WRONG_REFS, budget_condition, i2l_condition
from jobs.evaluation.config import EvaluationConfig
from jobs.evaluation.held_out import HeldOutStyle

REFERENCES = "references"
ORACLE = "oracle"
GAP_PX = 4
HEADER_PX = 18
PAPER, INK = (250, 250, 248), (40, 40, 40)


@dataclass(frozen=True, slots=True)
class PictureRow:
    """A style's pictures, one a column; None where the condition was not run on the style."""

    style: str
    prompt: str
    cells: tuple[Image.Image | None, ...]


@dataclass(frozen=True, slots=True)
class PictureGrid:
    """All styles at one prompt position."""

    columns: tuple[str, ...]
    rows: tuple[PictureRow, ...]


def build_grids(
    chunks: Sequence[ChunkResult],
    plans: Sequence[ChunkPlan],
    config: EvaluationConfig,
    *,
    best_budget: int | None,
) -> list[PictureGrid]:
    """One grid for each of the first prompts; columns that no style has are left out."""
    pictures = {name: images for chunk in chunks for name, images in chunk.pictures.items()}
    styles = [style for plan in plans for style in plan.styles if style.name in plan.pictured]
    trained = {name for plan in plans for name in plan.style_lora}
    styles.sort(key=lambda style: (style.name not in trained, style.name))
    sources = {REFERENCES: "", NULL: NULL, WRONG_REFS: WRONG_REFS}
    sources |= {i2l_condition(n): i2l_condition(n) for n in config.num_refs}
    if best_budget is not None:
        sources[STYLE_LORA] = budget_condition(best_budget)
    sources[ORACLE] = ORACLE
    columns = [
        name
        for name, source in sources.items()
        if name == REFERENCES or any(f"{style.name}/{source}" in pictures for style in styles)
    ]
    montages = {style.name: _montage(style, config.report_image_size) for style in styles}
    grids = []
    for position in range(min(config.report_num_prompts, config.num_prompts)):
        rows = []
        for style in styles:
            cells = [
                montages[style.name]
                if name == REFERENCES
                else _picture(pictures.get(f"{style.name}/{sources[name]}"), position, config)
                for name in columns
            ]
            rows.append(PictureRow(style.name, style.prompts[position].prompt, tuple(cells)))
        grids.append(PictureGrid(tuple(columns), tuple(rows)))
    return grids


def data_uri(image: Image.Image) -> str:
    """The picture as a data: URI, so that the page needs no other file."""
    return "data:image/png;base64," + base64.b64encode(png_of(image)).decode()


def png_of(image: Image.Image) -> bytes:
    """PNG bytes."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def draw_grid(grid: PictureGrid, *, cell_px: int, labels: Sequence[str]) -> Image.Image:
    """The whole grid as one picture with column labels."""
    step = cell_px + GAP_PX
    size = (GAP_PX + step * len(grid.columns), HEADER_PX + GAP_PX + step * len(grid.rows))
    canvas = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(size=11)
    for column, label in enumerate(labels):
        draw.text((GAP_PX + column * step + cell_px // 2, 4), label, INK, font=font, anchor="mt")
    for line, row in enumerate(grid.rows):
        for column, cell in enumerate(row.cells):
            if cell is not None:
                place = (GAP_PX + column * step, HEADER_PX + GAP_PX + line * step)
                canvas.paste(cell.resize((cell_px, cell_px), Image.Resampling.NEAREST), place)
    return canvas


def _picture(images: Tensor | None, position: int, config: EvaluationConfig) -> Image.Image | None:
    if images is None:
        return None
    pixels = images[position * config.num_seeds].permute(1, 2, 0).contiguous().numpy()
    return Image.fromarray(np.asarray(pixels, dtype=np.uint8))


def _montage(style: HeldOutStyle, size: int) -> Image.Image:
    """Up to four references in one square."""
    images = [decode_image(image.data, name=image.key) for image in style.references[:4]]
    if len(images) == 1:
        return fit_square(images[0], size)
    canvas = Image.new("RGB", (size, size), PAPER)
    half = size // 2
    for position, image in enumerate(images):
        canvas.paste(fit_square(image, half), (position % 2 * half, position // 2 * half))
    return canvas
