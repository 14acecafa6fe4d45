"""Training from the driver's side: check the input, start the workers, collect the result."""

import json
import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from i2l_model.errors import InputError
from jobs import storage
from jobs.cluster import ensure_ray
from jobs.progress import NullProgress, Progress
from jobs.registry.tracking import Tracker, TrackingConfig
from jobs.training.attempts import start_attempt
from jobs.training.caching import prepare_inputs
from jobs.training.config import TrainingConfig
from jobs.training.job import (
    CHECKPOINTS_FOLDER,
    HISTORY_FILE,
    PREDICTOR_FOLDER,
    TrainingJob,
)
from jobs.training.launch import choose_device, fit_workers
from jobs.training.memory_limit import check_memory
from jobs.training.patience import Patience
from jobs.training.preparation import check_pairs, describe_origin, materialise_init
from jobs.training.progress_stream import ProgressFollower
from jobs.training.recorder import VALIDATION_FOLDER

logger = logging.getLogger(__name__)

_RUN_FILE = "run.json"
_KEPT_FILE = "kept.json"
"""Says that the MLflow run has the predictor and is ended; without it, both are done again."""
_KEY_LENGTH = 16


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """A finished training.

    Attributes:
        predictor_uri: Folder with config.json, model.safetensors and provenance.json.
        run_id: MLflow run.
        metrics: Validation losses of the predictor, by name.
        step: Step that the predictor's weights are of.
        reused: Whether the output held this training already.
    """

    predictor_uri: str
    run_id: str
    metrics: dict[str, float]
    step: int
    reused: bool = False


def run_training(
    config: TrainingConfig,
    pairs_uri: str,
    output_uri: str,
    progress: Progress | None = None,
    tracking: TrackingConfig | None = None,
    init_from: str | None = None,
) -> TrainingResult:
    """Train a predictor, or go on where an interrupted run of the same settings stopped.

    The output folder gets ``predictor/``, ``training.json``, ``validation/``, ``checkpoints/`` and
    ``progress.jsonl``. With other settings or pairs than before, the training starts afresh; with
    the same, a finished one returns at once; if MLflow was away at its end, it gets the
    predictor now.

    Args:
        config: All settings.
        pairs_uri: Output folder of mining.
        output_uri: Folder that all workers can write to.
        progress: Receives the stage "train" and those before it.
        tracking: Where the MLflow run goes; relative paths start beside the output folder.
        init_from: Predictor folder, or ``models:/NAME@ALIAS``, whose weights the training starts
            from.

    Raises:
        InputError: If pairs, backbone, predictor to start from, tracking server or resources do
            not allow the training; most of it before Ray starts.
        TrainingDiverged: If the loss or the gradient is no finite number; names the step.
    """
    pairs_uri, output_uri = storage.absolute_uri(pairs_uri), storage.absolute_uri(output_uri)
    tracking = (tracking or TrackingConfig()).resolve(_workspace(output_uri))
    prompt = check_pairs(config, pairs_uri)
    init_uri = materialise_init(config, init_from, output_uri, tracking)
    origin = describe_origin(config, pairs_uri, init_uri, init_from)
    finished = _finished(output_uri, origin["key"])
    if finished is not None:
        logger.info("%s holds this training already", output_uri)
        _keep_again(tracking, config, output_uri, origin, finished)
        return finished
    check_memory(config, prompt)
    attempts_uri = storage.join_uri(output_uri, CHECKPOINTS_FOLDER, origin["key"][:_KEY_LENGTH])
    attempt_uri = start_attempt(attempts_uri)
    with _tracked_run(tracking, config, output_uri, origin) as tracker:
        ensure_ray()
        progress, device = progress or NullProgress(), choose_device(config)
        job = TrainingJob(
            config=config,
            inputs=prepare_inputs(config, pairs_uri, output_uri, init_uri, device, progress),
            output_uri=output_uri,
            tracking=tracking,
            device=device,
            init_uri=init_uri,
            attempt_uri=attempt_uri,
            origin={**origin, "run_id": tracker.run_id},
        )
        with ProgressFollower(output_uri, progress):
            fit_workers(job)
        return _collect(tracker, config, output_uri, job.key)


def _workspace(output_uri: str) -> Path:
    return Path.cwd() if storage.is_s3(output_uri) else storage.local_path(output_uri).parent


def _finished(output_uri: str, key: str) -> TrainingResult | None:
    """The training with this key, if the output holds it complete."""
    predictor_uri = storage.join_uri(output_uri, PREDICTOR_FOLDER)
    origin = _read_json(storage.join_uri(predictor_uri, "provenance.json"))
    history = _read_json(storage.join_uri(output_uri, HISTORY_FILE))
    if origin.get("key") != key or history.get("key") != key:
        return None
    return TrainingResult(
        predictor_uri, origin["run_id"], origin["metrics"], int(origin["step"]), reused=True
    )


def _read_json(uri: str) -> dict[str, Any]:
    """A JSON object; empty where there is none."""
    try:
        value = json.loads(storage.read_bytes(uri)) if storage.exists(uri) else {}
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _write_json(uri: str, value: dict[str, Any]) -> None:
    storage.write_bytes(uri, (json.dumps(value) + "\n").encode())


@contextmanager
def _tracked_run(
    tracking: TrackingConfig, config: TrainingConfig, output_uri: str, origin: dict[str, Any]
) -> Iterator[Tracker]:
    """The MLflow run of a training, ended with the status that fits if the training fails."""
    tracker = _start_run(tracking, config, output_uri, origin)
    try:
        yield tracker
    except BaseException as error:
        try:
            tracker.finish("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
        except InputError as away:  # the training's own error is what the user needs
            logger.warning("the MLflow run stays open: %s", away)
        raise


def _start_run(
    tracking: TrackingConfig, config: TrainingConfig, output_uri: str, origin: dict[str, Any]
) -> Tracker:
    """Start the MLflow run, or go on with that of the interrupted training."""
    storage.delete(storage.join_uri(output_uri, _KEPT_FILE))
    uri = storage.join_uri(output_uri, _RUN_FILE)
    earlier = _read_json(uri)
    tracker = Tracker(tracking)
    same = earlier.get("key") == origin["key"]
    before = earlier.get("run_id") if same else None
    run_id = tracker.start("train", run_id=before, tags=_tags(origin))
    if run_id != before:
        # Pictures of another training would be taken for this one's.
        storage.delete(storage.join_uri(output_uri, VALIDATION_FOLDER))
        tracker.log_params({"training": config.resolved(), "init_from": origin["init_from"]})
        _write_json(uri, {"key": origin["key"], "run_id": run_id})
    return tracker


def _tags(origin: dict[str, Any]) -> dict[str, str]:
    hashes = {name: str(origin[name]) for name in ("git_sha", "config_hash", "pairs_hash")}
    return {**hashes, "kind": "training"}


def _collect(tracker: Tracker, config: TrainingConfig, output_uri: str, key: str) -> TrainingResult:
    """Read what the workers have published, and keep it with the MLflow run."""
    patience = Patience(config.storage_patience_s, logger.warning)
    result = patience(partial(_finished, output_uri, key), "reading the result")
    assert result is not None, "the workers finished without a predictor"
    _keep(tracker, patience, output_uri, key)
    return replace(result, reused=False)


def _keep_again(
    tracking: TrackingConfig,
    config: TrainingConfig,
    output_uri: str,
    origin: dict[str, Any],
    result: TrainingResult,
) -> None:
    """Keep a finished training with its MLflow run, unless that was done when it ended."""
    key = origin["key"]
    if _read_json(storage.join_uri(output_uri, _KEPT_FILE)).get("key") == key:
        return
    tracker = Tracker(tracking)
    tracker.start("train", run_id=result.run_id, tags=_tags(origin))
    _keep(tracker, Patience(config.storage_patience_s, logger.warning), output_uri, key)


def _keep(tracker: Tracker, patience: Patience, output_uri: str, key: str) -> None:
    """Keep predictor and history with the run and end it; nothing is given up for a server."""
    patience(partial(_log_result, tracker, output_uri), "keeping the predictor")
    patience(tracker.finish, "ending the MLflow run")
    record = {"key": key, "run_id": tracker.run_id}
    marker = storage.join_uri(output_uri, _KEPT_FILE)
    patience(partial(_write_json, marker, record), f"writing {_KEPT_FILE}")


def _log_result(tracker: Tracker, output_uri: str) -> None:
    """Copy the predictor and the history into the run's files."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        predictor_uri = storage.join_uri(output_uri, PREDICTOR_FOLDER)
        storage.download_folder(predictor_uri, folder / PREDICTOR_FOLDER)
        history = storage.read_bytes(storage.join_uri(output_uri, HISTORY_FILE))
        storage.write_bytes(folder / HISTORY_FILE, history)
        tracker.log_artifacts(folder)
