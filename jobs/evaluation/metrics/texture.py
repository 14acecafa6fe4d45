"""Texture distance: log energies of a Gabor bank on luminance, by region."""

# B batch, F filters, H height, W width

from __future__ import annotations

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from jobs.evaluation.metrics.colour import LAB_RANGE
from jobs.evaluation.metrics.regions import Regions

WAVELENGTHS_PX = (3.0, 6.0, 12.0)
NUM_ORIENTATIONS = 4
# Energy of a wave of amplitude 0.01 of the luminance range: below it nothing is seen.
ENERGY_FLOOR = 1e-4
TEXTURED_REGIONS = ("background", "figure")


def texture_distance(
    samples_BHW: Tensor, oracles_BHW: Tensor, regions: Regions
) -> list[float | None]:
    """Mean |difference| of log10 energies over filters and regions, from luminance in [0,100].

    1 means one order of magnitude in energy. None where no region is present.
    """
    totals = [0.0] * samples_BHW.shape[0]
    counts = [0] * samples_BHW.shape[0]
    for name in TEXTURED_REGIONS:
        mask: Tensor = getattr(regions, name)
        gap = _log_energies(samples_BHW, mask) - _log_energies(oracles_BHW, mask)
        values: list[float] = gap.abs().mean(1).tolist()
        for row, there in enumerate(regions.present(name)):
            if there:
                totals[row] += values[row]
                counts[row] += 1
    return [total / count if count else None for total, count in zip(totals, counts, strict=True)]


def _log_energies(luminance_BHW: Tensor, mask_BHW: Tensor) -> Tensor:
    """(B,F) log10 energies inside the mask.

    What lies outside is first filled with the region's mean: the region's border is no texture.
    """
    weights = mask_BHW.to(luminance_BHW.dtype)
    total = weights.sum((1, 2)).clamp_min(1e-6)
    light = luminance_BHW / LAB_RANGE
    mean = (light * weights).sum((1, 2)) / total
    filled = torch.where(mask_BHW, light - mean[:, None, None], torch.zeros_like(light))
    bank = _gabor_bank().to(light)
    response = F.conv2d(filled.unsqueeze(1), bank, padding=bank.shape[-1] // 2)
    even, odd = response.chunk(2, dim=1)
    energy = (even.square() + odd.square()) * weights.unsqueeze(1)
    return torch.log10(energy.sum((2, 3)) / total[:, None] + ENERGY_FLOOR)


@lru_cache(maxsize=1)
def _gabor_bank() -> Tensor:
    """Even filters, then odd ones: (2F,1,k,k). A wave of amplitude a gives the energy a²."""
    half = math.ceil(max(WAVELENGTHS_PX))
    axis = torch.arange(-half, half + 1, dtype=torch.float32)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    even, odd = [], []
    for wavelength in WAVELENGTHS_PX:
        envelope = torch.exp(-(x.square() + y.square()) / (2 * (0.5 * wavelength) ** 2))
        envelope = envelope / envelope.sum()
        for index in range(NUM_ORIENTATIONS):
            angle = math.pi * index / NUM_ORIENTATIONS
            phase = 2 * math.pi / wavelength * (x * math.cos(angle) + y * math.sin(angle))
            wave = torch.cos(phase)
            # No answer to a constant: subtract the envelope's share.
            even.append(2 * envelope * (wave - (envelope * wave).sum()))
            odd.append(2 * envelope * torch.sin(phase))
    return torch.stack(even + odd).unsqueeze(1)
