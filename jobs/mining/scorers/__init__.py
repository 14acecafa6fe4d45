"""Scorers: models that give each picture a number, in place of the columns of its JSON."""

from collections.abc import Sequence
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from jobs.mining.config import ScorerConfig

Score = Literal["aesthetic", "watermark", "nsfw"]
SCORES: tuple[Score, ...] = ("aesthetic", "watermark", "nsfw")


class Scorer(Protocol):
    """Turns crops into scores; loaded once in each actor."""

    def __call__(self, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Score N crops (h, w, 3) uint8 sRGB: (N,)."""
        ...


def load_scorer(score: Score, config: ScorerConfig) -> Scorer:
    """Import and construct the model of a score."""
    if config.head is not None:
        from jobs.mining.scorers.aesthetic import AestheticHead

        return AestheticHead(score, config)
    from jobs.mining.scorers.classifier import ClassifierScorer

    return ClassifierScorer(score, config)
