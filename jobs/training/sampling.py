"""Which styles, references, targets and noise a step sees: a function of seed and step alone.

Nothing is carried from step to step, so that a resumed run sees what the uninterrupted one would
have seen, with any number of workers.
"""

# N styles of a batch, K targets a style, F references, C channels, h w latent cells, B = N * K

import math
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np
import torch

from jobs.training.buckets import Buckets
from jobs.training.config import TrainingConfig
from jobs.training.pair_index import NO_REF, PairIndex

_ORDER, _NUM_REFS, _CHOICE, NOISE_STREAM, _BUCKET, _PAIRS = range(6)  # streams of one seed


@dataclass(frozen=True, slots=True)
class StyleBatch:
    """Rows of a `PairIndex`.

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

    @property
    def present(self) -> np.ndarray:
        """Which references are there, (N, F) bool."""
        present: np.ndarray = self.refs_NF != NO_REF
        return present

    def part(self, n: int) -> "StyleBatch":
        """One group alone."""
        return StyleBatch(*(rows[n : n + 1] for rows in astuple(self)))


class StyleSampler:
    """Draws the groups of a step: styles in a new random order every epoch.

    A style's pairs go round: all of them have had their turn before one has another.

    Args:
        index: Pairs of the split.
        buckets: Sizes of the targets.
        config: Batch sizes, reference counts and seed.
    """

    def __init__(self, index: PairIndex, buckets: Buckets, config: TrainingConfig) -> None:
        self.index = index
        self.config = config
        self._buckets = buckets
        self._epoch = -1
        self._order = np.empty(0, dtype=np.int64)

    def batch(self, step: int, slots: range) -> StyleBatch:
        """The groups at positions ``slots`` (within 0..styles_per_step) of ``step``.

        All groups of a step prefer targets of one bucket, which is drawn by its share of the
        targets.
        """
        rng = np.random.default_rng([self.config.seed, _NUM_REFS, step])
        num_refs = int(rng.integers(self.config.min_refs, self.config.max_refs + 1))
        rng = np.random.default_rng([self.config.seed, _BUCKET, step])
        preferred = int(rng.choice(self._buckets.numbers_U))
        first = step * self.config.styles_per_step
        visits = [self._visit_at(first + slot) for slot in slots]
        return stack_groups(
            self.index,
            self._buckets,
            [style for style, _ in visits],
            [pair_of_visit(self.index, self.config.seed, *visit) for visit in visits],
            num_refs,
            self.config.targets_per_style,
            [[self.config.seed, _CHOICE, step, slot] for slot in slots],
            preferred,
        )

    def _visit_at(self, position: int) -> tuple[int, int]:
        """A style, and how often it has come before: once in every epoch."""
        num_styles = len(self.index.styles)
        epoch, place = divmod(position, num_styles)
        if epoch != self._epoch:
            rng = np.random.default_rng([self.config.seed, _ORDER, epoch])
            self._epoch, self._order = epoch, rng.permutation(num_styles)
        return int(self._order[place]), epoch


def pair_of_visit(index: PairIndex, seed: int, style: int, visit: int) -> int:
    """The pair whose turn it is when a style comes for the ``visit``-th time, from 0 on.

    Every round over the pairs of the style has a random order of its own.
    """
    pairs = index.style_pairs[style]
    turn, place = divmod(visit, len(pairs))
    return int(np.random.default_rng([seed, _PAIRS, style, turn]).permutation(pairs)[place])


def stack_groups(
    index: PairIndex,
    buckets: Buckets,
    styles: list[int],
    pairs: list[int],
    num_refs: int,
    num_targets: int,
    seeds: list[list[int]],
    preferred: int | None = None,
) -> StyleBatch:
    """One group for each style: references of its pair, and targets of other contents.

    A pair with fewer references than ``num_refs`` gives all it has; a style with fewer fitting
    targets than ``num_targets`` repeats some. The targets of a group are of one bucket: the
    preferred one where the style has any in it, else that of the pair's own target. The pair's own
    target is the first if it is of that bucket.
    """
    refs_NF = np.full((len(styles), num_refs), NO_REF, dtype=np.int64)
    targets_NK = np.empty((len(styles), num_targets), dtype=np.int64)
    for n, (style, pair, seed) in enumerate(zip(styles, pairs, seeds, strict=True)):
        rng = np.random.default_rng(seed)
        present = np.flatnonzero(index.pair_refs_PF[pair] != NO_REF)
        columns = rng.permutation(present)[:num_refs]
        refs_NF[n, : len(columns)] = index.pair_refs_PF[pair, columns]
        own = index.pair_targets_P[pair]  # fits: the miner paired it with these references
        others = index.allowed_targets(style, pair, columns)
        rows = np.append(own, rng.permutation(others[others != own]))
        numbers = buckets.numbers_U[rows]
        chosen = preferred if preferred in numbers else numbers[0]
        targets_NK[n] = np.resize(rows[numbers == chosen], num_targets)
    return StyleBatch(np.array(styles), refs_NF, targets_NK)


def describe_batch(
    index: PairIndex, batch: StyleBatch, sigmas_B: torch.Tensor, loss_B: torch.Tensor
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
            "style": index.styles[style],
            "reference_rows": [row for row in refs if row != NO_REF],
            "target_rows": targets,
            "prompts": [index.prompt(row) for row in targets],
            "sigmas": sigmas,
            "losses": [loss if math.isfinite(loss) else str(loss) for loss in losses],
        }
        for style, refs, targets, sigmas, losses in groups
    ]
