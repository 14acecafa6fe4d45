"""Before Ray starts: what a training needs is there, fits together and gets a hash."""

import io
import logging
import tempfile
from typing import Any

import pyarrow.parquet

from i2l_model.dinov3 import dinov3_sizes
from i2l_model.encoder import encoder_sizes
from i2l_model.errors import InputError
from i2l_model.tower_config import Dinov3Config, EncoderConfig
from jobs import provenance, storage
from jobs.predictor_folder import read_provenance, read_record
from jobs.registry.tracking import TrackingConfig
from jobs.registry.versions import ModelRegistry
from jobs.training.config import TrainingConfig
from jobs.training.indexing import has_split
from jobs.training.job import backbone_name, model_fingerprint

logger = logging.getLogger(__name__)

_INIT_FOLDER = "init"


def check_pairs(config: TrainingConfig, pairs_uri: str) -> str:
    """Refuse pairs that the training cannot use, and return their longest prompt.

    Raises:
        InputError: If there are none, or the train split has not enough styles.
    """
    if not has_split(pairs_uri, "train"):
        fix = "give the output of i2l mine, with train pairs"
        raise InputError("pairs", pairs_uri, "has no train shards", fix)
    index = storage.join_uri(pairs_uri, "index.parquet")
    if not storage.exists(index):
        raise InputError("pairs", pairs_uri, "has no index.parquet", "give the output of i2l mine")
    table = pyarrow.parquet.read_table(
        io.BytesIO(storage.read_bytes(index)), columns=["split", "style_id", "target_prompt"]
    )
    rows = zip(table["split"].to_pylist(), table["style_id"].to_pylist(), strict=True)
    num_styles = len({style for split, style in rows if split == "train"})
    if num_styles < config.styles_per_step:
        problem = f"has {num_styles} train styles, fewer than training.styles_per_step"
        fix = f"lower styles_per_step ({config.styles_per_step}) or mine more styles"
        raise InputError("pairs", pairs_uri, problem, fix)
    if not has_split(pairs_uri, "val"):
        logger.warning("%s has no val shards: the last weights are kept, unmeasured", pairs_uri)
    prompts: list[str] = table["target_prompt"].to_pylist()
    return max(prompts, key=len)


def materialise_init(
    config: TrainingConfig, init_from: str | None, output_uri: str, tracking: TrackingConfig
) -> str | None:
    """Folder that every worker can read the initial predictor from; checks that it fits."""
    if init_from is None:
        return None
    uri = init_from
    if init_from.startswith("models:/"):
        uri = storage.join_uri(output_uri, _INIT_FOLDER)
        with tempfile.TemporaryDirectory() as scratch:
            storage.upload_folder(ModelRegistry(tracking).download(init_from, scratch), uri)
    uri = storage.absolute_uri(uri)
    if not storage.exists(storage.join_uri(uri, "config.json")):
        fix = "give a predictor folder or models:/NAME@ALIAS"
        raise InputError("init_from", init_from, "has no config.json", fix)
    stored = read_record(uri, "config.json", init_from, field="init_from")
    expected = {"backbone": backbone_name(config.backbone), **_stored_options(config)}
    for name, value in expected.items():
        if stored.get(name) != value:
            problem = f"has {name} {stored.get(name)}, the training {value}"
            raise InputError("init_from", init_from, problem, "set them equal")
    return uri


def _stored_options(config: TrainingConfig) -> dict[str, Any]:
    """The predictor's options as `LoraPredictor.save_pretrained` writes them."""
    options = config.predictor.model_dump(mode="json", exclude={"target_modules", "max_refs"})
    encoder, dinov3 = config.predictor.encoder, config.predictor.dinov3
    if encoder.trainable:  # stored with the predictor
        options["encoder"] = encoder_sizes(encoder).model_dump(mode="json")
    if dinov3 is not None and dinov3.trainable:
        options["dinov3"] = dinov3_sizes(dinov3).model_dump(mode="json")
    return options


def _pairs_behind(predictor_uri: str) -> list[str] | None:
    """Hashes of all pairs that a predictor and its own start saw; None where that is not known."""
    origin = read_provenance(predictor_uri, predictor_uri, field="init_from") or {}
    earlier = [] if origin.get("init_hash") is None else origin.get("init_pairs")
    if origin.get("pairs_hash") is None or earlier is None:
        return None
    return sorted({str(origin["pairs_hash"]), *map(str, earlier)})


def describe_origin(
    config: TrainingConfig, pairs_uri: str, init_uri: str | None, init_from: str | None
) -> dict[str, Any]:
    """Provenance that is known before the training; "key" sums up what shapes the result."""
    init_hash = None
    if init_uri is not None:
        init_hash = provenance.file_hash(storage.join_uri(init_uri, "model.safetensors"))
    predictor = config.predictor
    shaping = {
        "training": config.resolved(),
        "pairs_hash": provenance.pairs_hash(pairs_uri),
        "backbone_hash": model_fingerprint(config.backbone),
        "encoder_hash": _tower_fingerprint(predictor.encoder),
        "dinov3_hash": _tower_fingerprint(predictor.dinov3),
        "init_hash": init_hash,
    }
    return {
        "schema": 1,
        **shaping,
        "key": provenance.json_hash(provenance.without_execution(shaping)),
        "config_hash": provenance.config_hash(config),
        "init_from": init_from,
        "init_pairs": None if init_uri is None else _pairs_behind(init_uri),
        "git_sha": provenance.git_sha(),
        "versions": provenance.environment_versions(),
    }


def _tower_fingerprint(tower: EncoderConfig | Dinov3Config | None) -> str | None:
    """Hash that changes with the files of a pretrained tower; None where there are none."""
    source = None if tower is None else tower.path_or_id
    return None if source is None else model_fingerprint(source)
