"""Noise and noise levels of a step: a function of seed and step alone, like its samples."""

# K targets of a style, C channels, h w latent cells

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from i2l_model.backbones import Backbone
from jobs.training.config import TrainingConfig
from jobs.training.sampling import NOISE_STREAM


@dataclass(frozen=True, slots=True)
class GroupNoise:
    """Noise of the K targets of a style.

    Attributes:
        noise_KChw: float32.
        sigmas_K: float32 in (0, 1].
    """

    noise_KChw: torch.Tensor
    sigmas_K: torch.Tensor


def draw_noise(
    backbone: Backbone, config: TrainingConfig, shape: Sequence[int], step: int, slot: int
) -> GroupNoise:
    """Noise of the group at ``slot`` of ``step``, the same on every device.

    The shares of ``sigma_bands_at(step)`` are uniform in their bands, the rest follows the
    backbone's own distribution.

    Args:
        backbone: The backbone.
        config: Bands and seed.
        shape: (K, C, h, w) of the latents.
        step: The step.
        slot: Position of the group in it.
    """
    generator = _generator([config.seed, NOISE_STREAM, step, slot])
    noise = backbone.noise(shape, generator)
    sigmas = backbone.sample_sigmas(shape[0], generator).float().cpu()
    place = 1 - torch.rand(shape[0], generator=generator)  # sigma 0 teaches nothing
    choice = torch.rand(shape[0], generator=generator)
    for band in config.sigma_bands_at(step):
        within = band.low + (band.high - band.low) * place
        sigmas = torch.where((choice >= 0) & (choice < band.share), within, sigmas)
        choice = choice - band.share
    return GroupNoise(noise, sigmas)


def fixed_noise(
    backbone: Backbone, seed: int, num: int, latent_shape: Sequence[int]
) -> torch.Tensor:
    """Noise (num, C, h, w) that every validation uses."""
    return backbone.noise((num, *latent_shape), _generator([seed, NOISE_STREAM]))


def _generator(seed: list[int]) -> torch.Generator:
    state = int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0])
    return torch.Generator().manual_seed(state & (2**63 - 1))
