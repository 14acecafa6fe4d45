"""From reference images, or a file, to one style LoRA."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

import torch

from i2l_model.errors import InputError
from i2l_model.images import to_tensor
from i2l_model.lora.factors import LoraFactors
from i2l_model.lora.files import LoraFormat, load_lora, save_lora
from i2l_model.lora.metadata import LoraMetadata, backbone_of
from i2l_model.predictor import LoraPredictor
from jobs.progress import Progress
from jobs.provenance import file_hash
from pipelines.devices import inference_device
from pipelines.style_references import References

_SHIPPED_BACKBONE = "tiny-zimage"
_STYLES_A_BATCH = 16


@dataclass(frozen=True)
class Prediction:
    """One LoRA, the backbone it is for, and the sha256 of its predictor's weights."""

    factors: LoraFactors
    backbone: str
    predictor_sha256: str = ""


class StylePredictor:
    """A predictor that stays loaded.

    Args:
        folder: Its files.

    Raises:
        InputError: If it is broken.
    """

    def __init__(self, folder: Path) -> None:
        self.predictor = LoraPredictor.from_pretrained(folder, inference_device())
        self.backbone = self.predictor.config.backbone
        self._sha256 = file_hash(str(folder / "model.safetensors"))

    def check(self, references: References) -> None:
        """Raise InputError if there are more references than the predictor takes."""
        most = self.predictor.config.max_refs
        if len(references.images) > most:
            num, first = len(references.images), references.paths[0]
            problem = f"({first}, ...) must be at most {most}"
            raise InputError("references", num, problem, "leave some out")

    @torch.inference_mode()
    def predict(self, styles: Sequence[References], *, strength: float = 1.0) -> list[Prediction]:
        """Predict the LoRA of each style, all in one forward pass.

        Args:
            styles: References of each.
            strength: Factor on the updates.

        Raises:
            InputError: If a style has too many references, or a LoRA of that strength would not be
                finite.
        """
        _check_strength(strength)
        for style in styles:
            self.check(style)
        most = max(len(style.images) for style in styles)
        size = self.predictor.image_size
        images = torch.zeros(len(styles), most, 3, size, size)
        weights = torch.zeros(len(styles), most)
        for row, style in enumerate(styles):
            num = len(style.images)
            images[row, :num] = to_tensor(style.images, size)
            weights[row, :num] = torch.tensor(style.weights or (1.0,) * num)
        device = inference_device()
        factors = self.predictor(images.to(device), (weights > 0).to(device), weights.to(device))
        factors = _scaled(factors.detach(), strength).to("cpu")
        return [
            Prediction(factors.select([row]), self.backbone, self._sha256)
            for row in range(len(styles))
        ]

    def neutral(self, num_refs: int, *, strength: float = 1.0) -> LoraFactors:
        """Return the LoRA of as many mid-grey references, for "neutral_negative" guidance."""
        return _scaled(self.predictor.predict_neutral(num_refs), strength).to("cpu")


def predict_style(
    folder: Path, references: References, *, strength: float, neutral_too: bool
) -> tuple[Prediction, LoraFactors | None]:
    """Predict the LoRA of one style, and, where asked, that of as many grey references.

    Args:
        folder: A predictor.
        references: Images of the style.
        strength: Factor on the updates.
        neutral_too: Whether to predict the second.

    Raises:
        InputError: As `StylePredictor`.
    """
    predictor = StylePredictor(folder)
    (prediction,) = predictor.predict([references], strength=strength)
    num_refs = len(references.images)
    return prediction, predictor.neutral(num_refs, strength=strength) if neutral_too else None


def read_lora(path: str, *, strength: float = 1.0) -> Prediction:
    """Read a LoRA file; one of another program is taken for the shipped backbone.

    Raises:
        InputError: If it is no LoRA, or would not be finite with that strength.
    """
    _check_strength(strength)
    factors, metadata = load_lora(path)
    return Prediction(_scaled(factors, strength), backbone_of(metadata) or _SHIPPED_BACKBONE)


def write_loras(
    folder: Path,
    styles: Mapping[Path, References],
    *,
    name: str,
    file_format: LoraFormat,
    strength: float,
    progress: Progress,
) -> dict[Path, Prediction]:
    """Predict and write the LoRA of each style, some styles in one forward pass.

    Args:
        folder: A predictor.
        styles: References by the file or PEFT folder to write.
        name: What the user calls the predictor.
        file_format: Key names of the files.
        strength: Factor on the updates.
        progress: Told about every batch.

    Raises:
        InputError: As `StylePredictor` and `save_lora`; nothing is written if a style does not fit
            or its LoRA is not finite.
    """
    predictor = StylePredictor(folder)
    for references in styles.values():
        predictor.check(references)
    predictions: dict[Path, Prediction] = {}
    for batch in _batches(list(styles.items())):
        predicted = predictor.predict([refs for _, refs in batch], strength=strength)
        predictions.update(zip([file for file, _ in batch], predicted, strict=True))
        progress.update("predict", len(predictions), len(styles), f"{len(predictions)} LoRAs")
    for file, prediction in predictions.items():
        metadata = lora_metadata(prediction, styles[file], strength, name)
        save_lora(prediction.factors, file, file_format, metadata.header())
    return predictions


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
        predictor=f"{predictor_name(predictor)} sha256:{prediction.predictor_sha256}",
        references=tuple(Path(path).name for path in references.paths),
        references_sha256=tuple(file_hash(path) for path in references.paths),
        weights=references.weights,
        strength=strength,
    )


def predictor_name(predictor: str) -> str:
    """Return what others may read of a predictor's place: of a folder the last part only."""
    return predictor if predictor.startswith("models:/") else PurePath(predictor).name


def _batches(
    styles: Sequence[tuple[Path, References]],
) -> Iterator[Sequence[tuple[Path, References]]]:
    for start in range(0, len(styles), _STYLES_A_BATCH):
        yield styles[start : start + _STYLES_A_BATCH]


def _check_strength(strength: float) -> None:
    if not math.isfinite(strength):
        raise InputError("--strength", strength, "is not finite", "use a number such as 1")


def _scaled(factors: LoraFactors, strength: float) -> LoraFactors:
    """Return the LoRAs at a strength; what is no longer finite is the strength's fault."""
    factors.check_finite()
    scaled = factors.scaled(strength)
    try:
        scaled.check_finite()
    except InputError as error:
        problem = "is too large for this LoRA"
        raise InputError("--strength", strength, problem, "use a number such as 1") from error
    return scaled
