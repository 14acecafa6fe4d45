"""Rendered training images for the tiny models: random styles and contents, kept on disk."""

import json
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jobs.corpus.captions import caption
from jobs.corpus.contents import CONTENT_NAMES
from jobs.corpus.render import render
from jobs.corpus.styles import sample_style
from jobs.progress import Progress

CHUNK = 1_000
IMAGES_PER_STYLE = 2
STYLED_CAPTION_SHARE = 0.3


@dataclass(frozen=True, slots=True)
class RenderedImages:
    """N images (N, H, W, 3) uint8, memory-mapped, with content numbers and captions.

    Image i is drawn in style ``i // IMAGES_PER_STYLE`` of a style space of its own.
    """

    pixels: NDArray[np.uint8]
    content_ids: NDArray[np.int64]
    captions: list[str]

    def __len__(self) -> int:
        return len(self.captions)

    def images(self, index: Tensor) -> Tensor:
        """Images of ``index`` (B,) as (B, 3, H, W) float32 in [-1, 1]."""
        chosen = torch.from_numpy(self.pixels[index.numpy()])
        return chosen.permute(0, 3, 1, 2).float() / 127.5 - 1


def _render_chunk(
    start: int, seed: int, size: int
) -> tuple[NDArray[np.uint8], list[int], list[str]]:
    pixels = np.empty((CHUNK, size, size, 3), dtype=np.uint8)
    content_ids, captions = [], []
    for offset in range(CHUNK):
        number = start + offset
        rng = np.random.default_rng([seed, number])
        content_id = int(rng.integers(len(CONTENT_NAMES)))
        style = sample_style(number // IMAGES_PER_STYLE, seed)
        rendering = render(CONTENT_NAMES[content_id], style, size=size, variant=number + 1)
        pixels[offset] = rendering.image
        content_ids.append(content_id)
        styled = rng.random() < STYLED_CAPTION_SHARE
        captions.append(caption(CONTENT_NAMES[content_id], rng, style if styled else None))
    return pixels, content_ids, captions


def rendered_images(
    folder: Path, num_images: int, *, seed: int, size: int, progress: Progress
) -> RenderedImages:
    """Draws ``num_images`` (rounded up to thousands) once and keeps them in ``folder``."""
    num_images = -(-num_images // CHUNK) * CHUNK
    stem = folder / f"images-{seed}-{size}-{num_images}"
    labels_path = stem.with_suffix(".json")
    if not labels_path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        shape = (num_images, size, size, 3)
        pixels = np.lib.format.open_memmap(
            stem.with_suffix(".npy"), mode="w+", dtype=np.uint8, shape=shape
        )
        content_ids: list[int] = []
        captions: list[str] = []
        starts = range(0, num_images, CHUNK)
        with ProcessPoolExecutor() as pool:
            jobs = [pool.submit(_render_chunk, start, seed, size) for start in starts]
            for start, job in zip(starts, jobs, strict=True):
                chunk, chunk_ids, chunk_captions = job.result()
                pixels[start : start + CHUNK] = chunk
                content_ids += chunk_ids
                captions += chunk_captions
                progress.update("render", start + CHUNK, num_images)
        pixels.flush()
        partial = labels_path.with_suffix(".partial")
        partial.write_text(json.dumps({"content_ids": content_ids, "captions": captions}))
        partial.rename(labels_path)
    labels = json.loads(labels_path.read_text())
    return RenderedImages(
        pixels=np.load(stem.with_suffix(".npy"), mmap_mode="r"),
        content_ids=np.array(labels["content_ids"]),
        captions=labels["captions"],
    )
