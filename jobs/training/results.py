"""What a finished training leaves: the predictor, its provenance and the history."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from i2l_model.predictor import LoraPredictor
from jobs import provenance, storage
from jobs.training.checkpoints import TrainerState, scratch_folder
from jobs.training.job import HISTORY_FILE, TrainingJob

_PREFIX = "predictor."  # the predictor is a submodule of what DeepSpeed trains


def export_predictor(
    template: LoraPredictor, weights: Mapping[str, torch.Tensor], folder: Path
) -> None:
    """Write a predictor folder.

    Args:
        template: Predictor that takes the weights; what was not trained stays as it is.
        weights: Trained weights by parameter name of the training objective.
        folder: Where config.json and model.safetensors go.
    """
    state = {name.removeprefix(_PREFIX): value for name, value in weights.items()}
    unexpected = template.load_state_dict(state, strict=False).unexpected_keys
    assert not unexpected, unexpected
    template.save_pretrained(folder)


def publish_results(
    job: TrainingJob,
    state: TrainerState,
    template: LoraPredictor,
    weights: Mapping[str, torch.Tensor],
) -> None:
    """Write ``training.json`` and ``predictor/`` of a finished training."""
    best = {
        "step": state.best_step or state.step,
        "metrics": state.best_metrics or _last_metrics(state),
    }
    history = {
        "key": job.key,
        "run_id": job.run_id,
        "steps": state.step,
        "best_step": best["step"],
        "metrics": best["metrics"],
        "resumed_at": state.resumed_at,
        "complete_epochs": state.complete_epochs,
        "epoch_styles": state.epoch_styles,
        "train_time_s": round(state.train_time_s, 3),
        "num_parameters": template.num_parameters(),
        "history": state.history,
    }
    storage.write_bytes(
        storage.join_uri(job.output_uri, HISTORY_FILE),
        (json.dumps(history, indent=1) + "\n").encode(),
    )
    with scratch_folder() as folder:
        export_predictor(template, weights, folder)
        digest = provenance.file_hash(str(folder / "model.safetensors"))
        origin = {**job.origin, **best, "predictor_sha256": digest}
        publish_predictor(folder, job.predictor_uri, origin)


def _last_metrics(state: TrainerState) -> dict[str, float]:
    last = state.history[-1] if state.history else {}
    return {name: value for name, value in last.items() if name != "step"}


def publish_predictor(folder: Path, uri: str, origin: Mapping[str, Any]) -> None:
    """Copy an exported predictor to ``uri``; provenance.json comes last and marks it complete.

    What was there goes first, so that a copy which was cut off never mixes two predictors.
    """
    storage.delete(uri)
    storage.upload_folder(folder, uri)
    marker = storage.join_uri(uri, "provenance.json")
    storage.write_bytes(marker, (json.dumps(origin, indent=2, sort_keys=True) + "\n").encode())
