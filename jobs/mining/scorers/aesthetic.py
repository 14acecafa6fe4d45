"""LAION's aesthetic predictors: a small head on CLIP's normalised image embedding.

The head is a safetensors file with the tensor names of the released ones: ``layers.<n>.weight``
and ``.bias`` (sac+logos+ava1-l14-linearMSE) or a single ``weight`` and ``bias``. The layers follow
each other without activations; dropout has no weights and no effect here.
"""

import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from i2l_model.errors import InputError
from jobs.mining.config import ScorerConfig
from jobs.mining.encoders.checkpoints import checkpoint_folder, load_pretrained
from jobs.mining.encoders.preprocessing import Pixels, read_preprocess
from jobs.mining.encoders.vision import run_settings

if TYPE_CHECKING:
    import torch

    Layer = tuple[torch.Tensor, torch.Tensor]

# N images, D features of CLIP's image embedding


class AestheticHead:
    """Crops → scores (N,), about 1 to 10.

    Args:
        score: Name of the score, for error messages.
        config: ``source`` is a CLIP model, ``head`` the head's file.
    """

    def __init__(self, score: str, config: ScorerConfig) -> None:
        from transformers import CLIPVisionModelWithProjection

        field = f"mining.scorers.{score}"
        folder = checkpoint_folder(field, config.source)
        self._preprocess = read_preprocess(field, folder)
        self._dtype, self._device = run_settings(config, field)
        model = load_pretrained(CLIPVisionModelWithProjection, field, folder, config.dtype)
        self._model = model.to(self._device)
        self._layers = [
            (weight.to(self._device), bias.to(self._device))
            for weight, bias in read_head(f"{field}.head", str(config.head))
        ]
        D, expected = model.config.projection_dim, self._layers[0][0].shape[1]
        if expected != D:
            problem = f"reads embeddings of {expected} features, the CLIP model has {D}"
            fix = "give the head's own CLIP model"
            raise InputError(f"{field}.head", config.head, problem, fix)

    def __call__(self, images: Sequence[Pixels]) -> NDArray[np.float32]:
        """Score N crops."""
        import torch
        from torch.nn import functional

        pixel_values = self._preprocess.tensor(images).to(self._device, self._dtype)
        with torch.inference_mode():
            embeds = self._model(pixel_values=pixel_values).image_embeds.float()
            values = functional.normalize(embeds, dim=-1)
            for weight, bias in self._layers:
                values = functional.linear(values, weight, bias)
        scores: NDArray[np.float32] = values[:, 0].cpu().numpy()
        return scores


def read_head(field: str, path: str) -> "list[Layer]":
    """(weight, bias) of each layer, in order, float32.

    Raises:
        InputError: If there is no such file or its layers do not follow each other.
    """
    from safetensors.torch import load_file

    fix = "give a safetensors file with layers.<n>.weight and .bias"
    if not Path(path).is_file() or not path.endswith(".safetensors"):
        raise InputError(field, path, "is no safetensors file", fix)
    try:
        state = load_file(path)
        names = sorted((n for n in state if n.endswith("weight")), key=_number)
        layers = [
            (state[n].float(), state[f"{n.removesuffix('weight')}bias"].float()) for n in names
        ]
        chained = all(b[0].shape[1] == a[0].shape[0] for a, b in pairwise(layers))
        if not layers or layers[-1][0].shape[0] != 1 or not chained:
            raise ValueError("the layers do not lead to one number")
    except Exception as error:  # safetensors raises an own type on damaged files
        raise InputError(field, path, f"is no aesthetic head ({error})", fix) from error
    return layers


def _number(name: str) -> int:
    match = re.search(r"\d+", name)
    return int(match[0]) if match else 0
