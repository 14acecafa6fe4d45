"""From reference images, or a file, to one style LoRA."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

import torch
from PIL import Image

from i2l_model.errors import InputError
from i2l_model.images import load_image, to_tensor
from i2l_model.lora.factors import LoraFactors
from i2l_model.lora.files import load_lora
from i2l_model.lora.metadata import LoraMetadata, backbone_of
from i2l_model.predictor import LoraPredictor
from jobs.provenance import file_hash

_SHIPPED_BACKBONE = "tiny-zimage"


@dataclass(frozen=True)
class References:
    """Images of one style.

    Attributes:
        paths: Where they came from.
        images: The decoded images.
        weights: How much each counts; None weighs them equally.
    """

    paths: tuple[str, ...]
    images: tuple[Image.Image, ...]
    weights: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Prediction:
    """One LoRA, the backbone it is for, and the sha256 of its predictor's weights."""

    factors: LoraFactors
    backbone: str
    predictor_sha256: str = ""


def read_references(paths: Sequence[str], weights: Sequence[float] | None = None) -> References:
    """Read all references; one that is no image fails all, before anything is written.

    Raises:
        InputError: If a file is missing or no usable image, or the weights do not fit.
    """
    images = tuple(load_image(path) for path in paths)
    if not weights:
        return References(tuple(paths), images)
    if len(weights) != len(paths):
        raise InputError(
            "--weights",
            list(weights),
            f"must be {len(paths)} numbers",
            "give one for each reference",
        )
    if not all(math.isfinite(weight) and weight >= 0 for weight in weights) or not sum(weights):
        raise InputError(
            "--weights", list(weights), "must be at least 0, one of them above", "change them"
        )
    return References(tuple(paths), images, tuple(weights))


@torch.inference_mode()
def predict_lora(folder: Path, references: References, *, strength: float = 1.0) -> Prediction:
    """Predict the LoRA of the references' style.

    Args:
        folder: A predictor.
        references: Images of one style.
        strength: Factor on the update.

    Raises:
        InputError: If there are more references than the predictor takes, the strength is not
            finite, or the predictor is broken.
    """
    _check_strength(strength)
    predictor = LoraPredictor.from_pretrained(folder)
    most = predictor.config.max_refs
    if len(references.images) > most:
        raise InputError(
            "references", len(references.images), f"must be at most {most}", "leave some out"
        )
    images = to_tensor(references.images, predictor.image_size)
    weights = torch.tensor([references.weights]) if references.weights else None
    factors = predictor(images[None], ref_weights=weights)
    weights_hash = file_hash(str(folder / "model.safetensors"))
    return Prediction(factors.detach().scaled(strength), predictor.config.backbone, weights_hash)


def read_lora(path: str, *, strength: float = 1.0) -> Prediction:
    """Read a LoRA file; one of another program is taken for the shipped backbone.

    Raises:
        InputError: If it is no LoRA, or the strength is not finite.
    """
    _check_strength(strength)
    factors, metadata = load_lora(path)
    return Prediction(factors.scaled(strength), backbone_of(metadata) or _SHIPPED_BACKBONE)


def lora_metadata(
    prediction: Prediction, references: References, strength: float, predictor: str
) -> LoraMetadata:
    """Return what a LoRA file says of itself.

    Args:
        prediction: The LoRA.
        references: What it was predicted from.
        strength: Factor that is inside of it.
        predictor: What the user calls the predictor.
    """
    return LoraMetadata(
        backbone=prediction.backbone,
        rank=prediction.factors.rank,
        predictor=f"{_label(predictor)} sha256:{prediction.predictor_sha256}",
        references=tuple(Path(path).name for path in references.paths),
        references_sha256=tuple(file_hash(path) for path in references.paths),
        weights=references.weights,
        strength=strength,
    )


def _label(predictor: str) -> str:
    """The predictor's name; of a folder the last part, since others read the file."""
    return predictor if predictor.startswith("models:/") else PurePath(predictor).name


def _check_strength(strength: float) -> None:
    if not math.isfinite(strength):
        raise InputError("--strength", strength, "is not finite", "use a number such as 1")
