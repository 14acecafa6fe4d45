"""Oracle images: what a prompt looks like in a held-out style, drawn by the corpus' renderer."""

# B batch, H height, W width

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from jobs.corpus.render import Rendering, render
from jobs.corpus.styles import sample_style
from jobs.evaluation.held_out import HeldOutStyle
from jobs.evaluation.held_out_images import GridLabel


@dataclass(frozen=True, slots=True)
class Oracles:
    """Images (B,3,H,W) in [0,1] with the masks (B,H,W) of figure and outline."""

    images: Tensor
    figure: Tensor
    outline: Tensor


def render_oracles(styles: Sequence[HeldOutStyle], *, size: int) -> Oracles | None:
    """One oracle a sample, in the order of the samples; None where one of them has none."""
    renderings = []
    for style in styles:
        for prompt in style.prompts:
            if prompt.grid is None:
                return None
            renderings += [_render(prompt.grid, size)] * len(prompt.seeds)
    images = np.stack([rendering.image for rendering in renderings])
    return Oracles(
        images=torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255.0,
        figure=torch.from_numpy(np.stack([r.figure for r in renderings])).float(),
        outline=torch.from_numpy(np.stack([r.outline for r in renderings])).float(),
    )


# Every condition of a chunk asks for the same oracles.
@lru_cache(maxsize=1024)
def _render(label: GridLabel, size: int) -> Rendering:
    return render(label.content, sample_style(label.style_id, label.seed), size=size)
