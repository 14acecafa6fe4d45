"""Writes stylegrid: labelled images of style x content as WebDataset shards, same seed, same bytes.

Keys and order tell nothing of the labels, so that mining the corpus blind is a fair test.
"""

import io
import json
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from PIL import Image
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from i2l_model.errors import InputError
from jobs import storage
from jobs.corpus.captions import caption
from jobs.corpus.contents import CONTENT_NAMES
from jobs.corpus.families import FamilyConfig, GridStyle, sample_grid_styles
from jobs.corpus.render import render
from jobs.corpus.styles import sample_style
from jobs.progress import Progress
from jobs.provenance import config_hash
from jobs.shards import ShardWriter, remove_shards

LICENCE = "CC0-1.0"
MANIFEST_NAME = "corpus.json"
_IMAGES_A_TASK = 128


class CorpusConfig(BaseModel):
    """Which grid to draw."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_styles: int = Field(400, ge=1, description="styles, numbered from first_style")
    first_style: int = Field(0, ge=0, description="number of the first style in the seed's space")
    images_per_style: int = Field(12, ge=1, description="images of a style, contents differ")
    num_contents: int = Field(
        len(CONTENT_NAMES), ge=1, le=len(CONTENT_NAMES), description="contents to draw from"
    )
    held_out_contents: tuple[str, ...] = Field(
        (), description="contents that never appear, kept for prompts of the evaluation"
    )
    size: int = Field(64, ge=32, le=512, description="side of an image in pixels")
    seed: int = Field(1, ge=0, description="seed of styles, contents, wordings and order")
    styled_caption_share: float = Field(
        0.3, ge=0, le=1, description="share of captions with style words, as the wild has them"
    )
    shard_mib: int = Field(64, ge=1, description="upper size of a shard in MiB")
    families: FamilyConfig | None = Field(
        None, description="a hard grid, with palettes that are shared or vary; None: a plain one"
    )

    @model_serializer(mode="wrap")
    def _plain_as_ever(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without families, what was written before there were any, so that hashes stay."""
        values: dict[str, Any] = handler(self)
        return {k: v for k, v in values.items() if k != "families" or v is not None}

    @field_validator("held_out_contents")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [name for name in names if name not in CONTENT_NAMES]
        if unknown:
            raise ValueError(f"{unknown[0]!r} is no content; known: {', '.join(CONTENT_NAMES)}")
        return names

    @model_validator(mode="after")
    def _draws_something(self) -> Self:
        if not self.contents:
            raise ValueError(
                f"num_contents ({self.num_contents}) leaves none beside held_out_contents; "
                "raise it, or hold out fewer contents"
            )
        return self

    @property
    def contents(self) -> tuple[str, ...]:
        """The contents that are drawn."""
        return tuple(
            name
            for name in CONTENT_NAMES[: self.num_contents]
            if name not in self.held_out_contents
        )


@dataclass(frozen=True, slots=True)
class CorpusResult:
    """Where the shards are and how much they hold."""

    uri: str
    num_images: int
    num_shards: int
    reused: bool = False


@dataclass(frozen=True, slots=True)
class _Cell:
    """One image to draw."""

    style: GridStyle
    content: str
    variant: int

    @property
    def style_id(self) -> int:
        return self.style.style.style_id


def _styles(config: CorpusConfig) -> list[GridStyle]:
    if config.families is not None:
        return sample_grid_styles(
            config.families, config.first_style, config.num_styles, config.seed
        )
    numbers = range(config.first_style, config.first_style + config.num_styles)
    return [GridStyle(sample_style(number, config.seed), "ordinary") for number in numbers]


def _cells(config: CorpusConfig) -> list[_Cell]:
    """All images in the shuffled order in which they are written."""
    contents, cells = config.contents, []
    for style in _styles(config):
        rng = np.random.default_rng([config.seed, style.style.style_id, 1])
        order = rng.permutation(len(contents))
        for number in range(config.images_per_style):
            content = contents[order[number % len(contents)]]
            cells.append(_Cell(style, content, 1 + int(rng.integers(1 << 30))))
    shuffled = np.random.default_rng([config.seed, 2]).permutation(len(cells))
    return [cells[i] for i in shuffled]


def _draw(cells: list[_Cell], config: CorpusConfig) -> list[dict[str, bytes]]:
    """The members of each cell's sample."""
    samples = []
    for cell in cells:
        style = cell.style.of_image(np.random.default_rng([config.seed, cell.variant, 3]))
        rendering = render(cell.content, style, size=config.size, variant=cell.variant)
        buffer = io.BytesIO()
        Image.fromarray(rendering.image).save(buffer, format="PNG")
        rng = np.random.default_rng([config.seed, cell.style_id, cell.variant])
        styled = rng.random() < config.styled_caption_share
        text = caption(cell.content, rng, style if styled else None)
        labels = _labels(cell, config)
        members = {"png": buffer.getvalue(), "txt": text.encode()}
        samples.append(members | {"json": json.dumps(labels, sort_keys=True).encode()})
    return samples


def _labels(cell: _Cell, config: CorpusConfig) -> dict[str, Any]:
    """The truth about an image; of a plain grid also what draws it again."""
    labels = {"style_id": cell.style_id, "content_id": cell.content, "licence": LICENCE}
    if config.families is not None:
        return labels | {"style_group": cell.style.group, "style_family": cell.style.family}
    drawn = {
        "seed": config.seed,
        "style_id": cell.style_id,
        "content": cell.content,
        "variant": cell.variant,
        "size": config.size,
    }
    return labels | {"stylegrid": drawn}


def _drawn(cells: list[_Cell], config: CorpusConfig) -> Iterator[dict[str, bytes]]:
    """Samples of ``cells`` in order, drawn by one process a core."""
    tasks = [cells[i : i + _IMAGES_A_TASK] for i in range(0, len(cells), _IMAGES_A_TASK)]
    if len(tasks) == 1:
        yield from _draw(cells, config)
        return
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:
        for samples in pool.map(_draw, tasks, [config] * len(tasks)):
            yield from samples


def write_corpus(config: CorpusConfig, output_uri: str, progress: Progress) -> CorpusResult:
    """Draws the grid into ``output_uri``; a finished one of the same config is left as it is.

    Shards without a manifest are those of a killed run and are removed.

    Raises:
        InputError: ``output_uri`` holds a corpus of another config.
    """
    manifest_uri = storage.join_uri(output_uri, MANIFEST_NAME)
    cells = _cells(config)
    if storage.exists(manifest_uri):
        manifest = json.loads(storage.read_bytes(manifest_uri))
        if manifest["config_hash"] != config_hash(config):
            raise InputError(
                "output", output_uri, "holds another corpus", "give an empty folder or remove it"
            )
        return CorpusResult(output_uri, manifest["num_images"], len(manifest["shards"]), True)
    remove_shards(output_uri, "stylegrid")
    with ShardWriter(output_uri, "stylegrid", config.shard_mib << 20) as writer:
        for number, members in enumerate(_drawn(cells, config)):
            writer.write(f"{number:08d}", members)
            progress.update("corpus", number + 1, len(cells))
    manifest = {
        "config": config.model_dump(mode="json"),
        "config_hash": config_hash(config),
        "num_images": len(cells),
        "shards": {info.uri.rsplit("/", 1)[-1]: info.sha256 for info in writer.shards},
    }
    storage.write_bytes(manifest_uri, json.dumps(manifest, indent=2).encode())
    return CorpusResult(output_uri, len(cells), len(writer.shards))
