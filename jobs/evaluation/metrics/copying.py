"""Copies of a reference: equal perceptual hash and equal colours."""

# B batch, N references, C channels, H height, W width

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from jobs.evaluation.metrics.colour import LAB_RANGE, rgb_to_lab

HASH_CELLS = 32
HASH_SIDE = 8
POOLED_CELLS = 16


def perceptual_hashes(images_BCHW: Tensor) -> Tensor:
    """(B,64) bits: signs of the lowest cosine coefficients of luminance about their median."""
    light = F.interpolate(
        rgb_to_lab(images_BCHW)[:, :1], size=(HASH_CELLS, HASH_CELLS), mode="area"
    ).squeeze(1)
    basis = _cosine_basis().to(light)
    coefficients = torch.einsum("uh,bhw,vw->buv", basis, light, basis).flatten(1)
    # The first one is the mean brightness: it says nothing of the drawing.
    median = coefficients[:, 1:].median(1, keepdim=True).values
    return coefficients > median


def copied(
    samples_BCHW: Tensor, references_NCHW: Tensor, *, max_hamming: int, max_colour: float
) -> list[bool]:
    """Whether each sample repeats one of the references.

    A copy agrees with the reference in all but `max_hamming` of 64 hash bits and differs by less
    than `max_colour` (Lab / 100) on the average over a 16x16 grid.
    """
    bits = perceptual_hashes(samples_BCHW)[:, None] ^ perceptual_hashes(references_NCHW)[None]
    hamming_BN = bits.sum(2)
    left = F.adaptive_avg_pool2d(rgb_to_lab(samples_BCHW), POOLED_CELLS)[:, None]
    right = F.adaptive_avg_pool2d(rgb_to_lab(references_NCHW), POOLED_CELLS)[None]
    colour_BN = (left - right).square().sum(2).sqrt().mean((2, 3)) / LAB_RANGE
    hits: list[bool] = ((hamming_BN <= max_hamming) & (colour_BN < max_colour)).any(1).tolist()
    return hits


def _cosine_basis() -> Tensor:
    position = torch.arange(HASH_CELLS, dtype=torch.float32) + 0.5
    frequency = torch.arange(HASH_SIDE, dtype=torch.float32)
    return torch.cos(math.pi / HASH_CELLS * frequency[:, None] * position[None])
