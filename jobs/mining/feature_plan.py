"""What is computed for every picture, derived from the configuration before any work begins."""

from dataclasses import dataclass
from importlib import import_module
from typing import Any, cast

import pyarrow as pa

from jobs.mining.config import EncoderConfig, IngestConfig, MiningConfig, ModelConfig, ScorerConfig
from jobs.mining.encoders import REGISTRY, Kind, encoder_entry
from jobs.mining.encoders.checkpoints import checkpoint_folder, checkpoint_hash
from jobs.mining.encoders.preprocessing import Crop, read_preprocess
from jobs.mining.feature_schema import FEATURE_SCHEMA_VERSION, SCHEMA
from jobs.mining.scorers import SCORES, Score
from jobs.provenance import file_hash, json_hash

CHUNK_ROWS = 64
"""Positions of a shard that are one batch of every encoder."""

ROW_SCHEMA = pa.schema([("shard", pa.int32()), *SCHEMA])
_KINDS: tuple[Kind, ...] = ("style", "content")


@dataclass(frozen=True, slots=True)
class ModelStep:
    """A model between its crops and its column.

    Attributes:
        column: Column of the feature file that it fills.
        pixels: Column of the rows that holds its crops.
        crop: How they were made.
        encoder: Its settings, of an encoder.
        scorer: Its settings, of a scorer.
    """

    column: str
    pixels: str
    crop: Crop
    encoder: EncoderConfig | None = None
    scorer: ScorerConfig | None = None

    @property
    def score(self) -> Score:
        """The score that a scorer's column holds."""
        return cast(Score, self.column)

    @property
    def config(self) -> ModelConfig:
        """Precision and workers."""
        config = self.encoder or self.scorer
        assert config is not None
        return config


@dataclass(frozen=True, slots=True)
class FeaturePlan:
    """Everything that workers need to know.

    Attributes:
        ingest: Limits.
        descriptors: (column, encoder) that run where pictures are decoded.
        models: Models in the order of their stages.
        identity: Hash of all that shapes the features of a shard, the weights of models included.
    """

    ingest: IngestConfig
    descriptors: tuple[tuple[str, EncoderConfig], ...]
    models: tuple[ModelStep, ...]
    identity: str

    @property
    def crops(self) -> tuple[tuple[str, Crop], ...]:
        """(column, crop), models that want the same pixels share one."""
        return tuple({step.pixels: step.crop for step in self.models}.items())

    @property
    def working_px(self) -> int:
        """Short side of the copy that descriptors are handed."""
        return max((REGISTRY[config.name].input_px for _, config in self.descriptors), default=0)

    @property
    def reduced_px(self) -> int:
        """Short side that decoding must not go below: twice what is looked at."""
        sides = [crop.shortest_edge or max(crop.height, crop.width) for _, crop in self.crops]
        return 2 * max([self.working_px, *sides])


def plan_features(config: MiningConfig) -> FeaturePlan:
    """Find every model and read its preprocessing.

    Raises:
        InputError: If an encoder or scorer is unknown or its model is not there.
    """
    descriptors: list[tuple[str, EncoderConfig]] = []
    models: list[ModelStep] = []
    parts: dict[str, Any] = {
        "version": FEATURE_SCHEMA_VERSION,
        "ingest": config.ingest.model_dump(mode="json"),
    }
    for kind in _KINDS:
        encoder = config.style_encoder if kind == "style" else config.content_encoder
        entry = encoder_entry(encoder, kind)
        if entry.is_model:
            step, parts[kind] = _encoder_step(kind, encoder)
            models.append(step)
        else:
            descriptors.append((kind, encoder))
            parts[kind] = [encoder.name, entry.version]
    for score in SCORES:
        scorer: ScorerConfig = getattr(config.scorers, score)
        if scorer.is_model:
            step, parts[score] = _scorer_step(score, scorer)
            models.append(step)
    return FeaturePlan(config.ingest, tuple(descriptors), tuple(models), json_hash(parts))


def _encoder_step(kind: Kind, config: EncoderConfig) -> tuple[ModelStep, list[Any]]:
    field = f"mining.{kind}_encoder"
    folder = checkpoint_folder(f"{field}.path", config.path)
    module, _, attribute = REGISTRY[config.name].location.partition(":")
    crop = getattr(import_module(module), attribute).read_preprocess(field, folder).crop
    identity: list[Any] = [config.name, config.dtype, checkpoint_hash(folder)]
    if config.text_path:
        text_folder = checkpoint_folder(f"{field}.text_path", config.text_path)
        identity += [config.text_weight, checkpoint_hash(text_folder)]
    return ModelStep(kind, _pixels_column(crop), crop, encoder=config), identity


def _scorer_step(score: Score, config: ScorerConfig) -> tuple[ModelStep, list[Any]]:
    field = f"mining.scorers.{score}"
    folder = checkpoint_folder(field, config.source)
    crop = read_preprocess(field, folder).crop
    identity: list[Any] = [config.dtype, config.positive_label, checkpoint_hash(folder)]
    if config.head is not None:
        identity.append(file_hash(config.head))
    return ModelStep(score, _pixels_column(crop), crop, scorer=config), identity


def _pixels_column(crop: Crop) -> str:
    return f"pixels_{crop.shortest_edge}_{crop.width}x{crop.height}_{crop.resample}"
