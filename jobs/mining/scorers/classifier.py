"""Scores from an image classifier in the format of transformers.

Watermark and NSFW: the probability of the positive label. Aesthetic: a model with a single output
gives the score itself, one with labels ten times the positive label's probability.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from i2l_model.errors import InputError
from jobs.mining.config import ScorerConfig
from jobs.mining.encoders.checkpoints import checkpoint_folder, load_pretrained
from jobs.mining.encoders.preprocessing import Pixels, read_preprocess
from jobs.mining.encoders.vision import run_settings


class ClassifierScorer:
    """Crops → scores (N,).

    Args:
        score: "aesthetic", "watermark" or "nsfw".
        config: Source, label, precision and device.
    """

    def __init__(self, score: str, config: ScorerConfig) -> None:
        from transformers import AutoModelForImageClassification

        field = f"mining.scorers.{score}"
        folder = checkpoint_folder(field, config.source)
        self._preprocess = read_preprocess(field, folder)
        self._dtype, self._device = run_settings(config, field)
        model = load_pretrained(AutoModelForImageClassification, field, folder, config.dtype)
        self._model = model.to(self._device)
        self._scale = 10.0 if score == "aesthetic" else 1.0
        self._is_regression = score == "aesthetic" and model.config.num_labels == 1
        labels = {int(i): str(name) for i, name in model.config.id2label.items()}
        self._label = 0 if self._is_regression else _positive(labels, score, config, field)

    def __call__(self, images: Sequence[Pixels]) -> NDArray[np.float32]:
        """Score N crops."""
        import torch

        pixel_values = self._preprocess.tensor(images).to(self._device, self._dtype)
        with torch.inference_mode():
            logits = self._model(pixel_values=pixel_values).logits.float()
            if not self._is_regression:
                is_single = logits.shape[1] == 1
                logits = logits.sigmoid() if is_single else logits.softmax(dim=1)
                logits = logits * self._scale
        scores: NDArray[np.float32] = logits[:, self._label].cpu().numpy()
        return scores


def _positive(labels: dict[int, str], score: str, config: ScorerConfig, field: str) -> int:
    """Number of the label whose probability is the score."""
    wanted = (config.positive_label or score).lower()
    found = [number for number, name in labels.items() if name.lower() == wanted]
    if not found:
        known = ", ".join(labels.values())
        fix = f"set positive_label to one of: {known}"
        raise InputError(f"{field}.positive_label", wanted, "is no label of the model", fix)
    return found[0]
