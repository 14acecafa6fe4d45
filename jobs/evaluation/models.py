"""The models of an evaluation, loaded once a worker."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass

import torch

from i2l_model.assets import available_assets
from i2l_model.backbones import Backbone, load_backbone
from i2l_model.errors import InputError
from i2l_model.predictor import LoraPredictor
from jobs import storage
from jobs.corpus.classifier import load_classifier
from jobs.evaluation.config import EvaluationConfig
from jobs.evaluation.metrics.prompt_reading import BackboneReader, ClassifierReader, PromptReader

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
CLASSIFIER_ASSET = "tiny-classifier"


@dataclass(frozen=True, slots=True)
class EvaluationModels:
    """Backbone, predictor and the judge of contents."""

    backbone: Backbone
    predictor: LoraPredictor
    reader: PromptReader


def load_models(
    config: EvaluationConfig, predictor_uri: str, subjects: frozenset[str]
) -> EvaluationModels:
    """Load everything onto `config.device`.

    Args:
        config: Names the backbone and the reader.
        predictor_uri: A predictor folder, local or in S3.
        subjects: Every content of the evaluation; the classifier must know them all.

    Raises:
        InputError: If a model is missing or does not fit.
    """
    predictor = load_predictor(predictor_uri, config)
    backbone = load_backbone(
        config.backbone or predictor.config.backbone,
        dtype=DTYPES[config.dtype],
        device=config.device,
    )
    predictor.config.check_backbone(backbone)
    return EvaluationModels(backbone, predictor, choose_reader(config, backbone, subjects))


def load_predictor(predictor_uri: str, config: EvaluationConfig) -> LoraPredictor:
    """The predictor in evaluation mode.

    Raises:
        InputError: If it is missing or takes fewer references than `num_refs` asks for.
    """
    if storage.is_s3(predictor_uri):
        with tempfile.TemporaryDirectory() as scratch:
            folder = storage.download_folder(predictor_uri, scratch)
            predictor = LoraPredictor.from_pretrained(folder, device=config.device)
    else:
        folder = storage.local_path(predictor_uri)
        predictor = LoraPredictor.from_pretrained(folder, device=config.device)
    if config.max_refs > predictor.config.max_refs:
        raise InputError(
            "evaluation.num_refs",
            config.num_refs,
            f"is more than the {predictor.config.max_refs} references of the predictor",
            "lower it",
        )
    return predictor


def choose_reader(
    config: EvaluationConfig, backbone: Backbone, subjects: frozenset[str]
) -> PromptReader:
    """The classifier where it knows every subject, else the backbone.

    Raises:
        InputError: If the classifier is asked for by name and does not know them.
    """
    if config.prompt_reader != "backbone" and CLASSIFIER_ASSET in available_assets():
        classifier = load_classifier()
        unknown = sorted(subjects - set(classifier.contents))
        if not unknown:
            return ClassifierReader(classifier)
        if config.prompt_reader == "classifier":
            raise InputError(
                "evaluation.prompt_reader",
                "classifier",
                f"does not know '{unknown[0]}'",
                "use prompt_reader auto or backbone",
            )
    elif config.prompt_reader == "classifier":
        raise InputError(
            "evaluation.prompt_reader",
            "classifier",
            "is not shipped with this installation",
            "use prompt_reader auto or backbone",
        )
    return BackboneReader(backbone, batch_size=config.batch_size)
