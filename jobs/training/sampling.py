"""Which styles, references, targets and noise a step sees: a function of seed and step alone.

Nothing is carried from step to step, so that a resumed run sees what the uninterrupted one would
have seen, with any number of workers.
"""

# N styles of a batch, K targets a style, F references, C channels, h w latent cells, B = N * K

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from i2l_model.backbones import Backbone
from jobs.training.config import TrainingConfig
from jobs.training.data import NO_REF, PairStore

_ORDER, _NUM_REFS, _CHOICE, _NOISE = range(4)  # streams of one seed


@dataclass(frozen=True, slots=True)
class StyleBatch:
    """Rows of a `PairStore`.

    Attributes:
        styles_N: Style of each group.
        refs_NF: Reference rows, padded with ``NO_REF``.
        targets_NK: Target rows of each group.
    """

    styles_N: np.ndarray
    refs_NF: np.ndarray
    targets_NK: np.ndarray

    def __len__(self) -> int:
        return len(self.styles_N)


class StyleSampler:
    """Draws the groups of a step: styles in a new random order every epoch.

    Args:
        store: Pairs of the split.
        config: Batch sizes, reference counts and seed.
    """

    def __init__(self, store: PairStore, config: TrainingConfig) -> None:
        self.store = store
        self.config = config
        self._epoch = -1
        self._order = np.empty(0, dtype=np.int64)

    def batch(self, step: int, slots: range) -> StyleBatch:
        """The groups at positions ``slots`` (within 0..styles_per_step) of ``step``."""
        rng = np.random.default_rng([self.config.seed, _NUM_REFS, step])
        num_refs = int(rng.integers(self.config.min_refs, self.config.max_refs + 1))
        first = step * self.config.styles_per_step
        return stack_groups(
            self.store,
            [self._style_at(first + slot) for slot in slots],
            num_refs,
            self.config.targets_per_style,
            [[self.config.seed, _CHOICE, step, slot] for slot in slots],
        )

    def _style_at(self, position: int) -> int:
        num_styles = len(self.store.styles)
        epoch, index = divmod(position, num_styles)
        if epoch != self._epoch:
            rng = np.random.default_rng([self.config.seed, _ORDER, epoch])
            self._epoch, self._order = epoch, rng.permutation(num_styles)
        return int(self._order[index])


def stack_groups(
    store: PairStore, styles: list[int], num_refs: int, num_targets: int, seeds: list[list[int]]
) -> StyleBatch:
    """One group for each style: references of one random pair, and targets of other contents.

    A pair with fewer references than ``num_refs`` gives all it has; a style with fewer fitting
    targets than ``num_targets`` repeats some.
    """
    refs_NF = np.full((len(styles), num_refs), NO_REF, dtype=np.int64)
    targets_NK = np.empty((len(styles), num_targets), dtype=np.int64)
    for n, (style, seed) in enumerate(zip(styles, seeds, strict=True)):
        rng = np.random.default_rng(seed)
        pair = int(rng.choice(store.style_pairs[style]))
        present = np.flatnonzero(store.pair_refs_PF[pair] != NO_REF)
        columns = rng.permutation(present)[:num_refs]
        refs_NF[n, : len(columns)] = store.pair_refs_PF[pair, columns]
        allowed = store.allowed_targets(style, pair, columns)
        if not len(allowed):  # the miner paired it with these references, so that it fits
            allowed = store.pair_targets_P[pair : pair + 1]
        targets_NK[n] = np.resize(rng.permutation(allowed), num_targets)
    return StyleBatch(np.array(styles), refs_NF, targets_NK)


def describe_batch(
    store: PairStore, batch: StyleBatch, sigmas_B: torch.Tensor, loss_B: torch.Tensor
) -> list[dict[str, Any]]:
    """Say what a batch held, JSON-ready: style, prompts, noise levels and losses of each group."""
    shape = batch.targets_NK.shape
    groups = zip(
        batch.styles_N.tolist(),
        batch.refs_NF.tolist(),
        batch.targets_NK.tolist(),
        sigmas_B.view(shape).tolist(),
        loss_B.float().view(shape).tolist(),
        strict=True,
    )
    return [
        {
            "style": store.styles[style],
            "reference_rows": [row for row in refs if row != NO_REF],
            "target_rows": targets,
            "prompts": [store.prompts[row] for row in targets],
            "sigmas": sigmas,
            "losses": [loss if math.isfinite(loss) else str(loss) for loss in losses],
        }
        for style, refs, targets, sigmas, losses in groups
    ]


@dataclass(frozen=True, slots=True)
class NoiseBatch:
    """Noise and noise levels of a batch.

    Attributes:
        noise_BChw: float32.
        sigmas_B: float32 in (0, 1].
    """

    noise_BChw: torch.Tensor
    sigmas_B: torch.Tensor


def draw_noise(
    backbone: Backbone,
    config: TrainingConfig,
    latent_shape: Sequence[int],
    step: int,
    slots: range,
) -> NoiseBatch:
    """Noise of the groups ``slots`` of ``step``, the same on every device.

    The shares of ``sigma_bands_at(step)`` are uniform in their bands, the rest follows the
    backbone's own distribution.
    """
    num_targets = config.targets_per_style
    bands = config.sigma_bands_at(step)
    noise, sigmas = [], []
    for slot in slots:
        generator = _generator([config.seed, _NOISE, step, slot])
        noise.append(backbone.noise((num_targets, *latent_shape), generator))
        chosen = backbone.sample_sigmas(num_targets, generator).float().cpu()
        place = 1 - torch.rand(num_targets, generator=generator)  # sigma 0 teaches nothing
        choice = torch.rand(num_targets, generator=generator)
        for band in bands:
            within = band.low + (band.high - band.low) * place
            chosen = torch.where((choice >= 0) & (choice < band.share), within, chosen)
            choice = choice - band.share
        sigmas.append(chosen)
    return NoiseBatch(torch.cat(noise), torch.cat(sigmas))


def fixed_noise(
    backbone: Backbone, seed: int, num: int, latent_shape: Sequence[int]
) -> torch.Tensor:
    """Noise (num, C, h, w) that every validation uses."""
    return backbone.noise((num, *latent_shape), _generator([seed, _NOISE]))


def _generator(seed: list[int]) -> torch.Generator:
    state = int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0])
    return torch.Generator().manual_seed(state & (2**63 - 1))
