"""The driver's side of a training, without workers."""

import json
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from jobs.away import ServerAway
from jobs.registry.tracking import Tracker, TrackingConfig
from jobs.training import run
from jobs.training.config import TrainingConfig
from jobs.training.inputs import TrainingInputs
from jobs.training.job import TrainingJob
from jobs.training.run import TrainingResult, run_training


class Desk:
    """Trains by writing what workers would leave."""

    def __init__(self, folder: Path, pairs: Path, config: TrainingConfig) -> None:
        self.output = folder / "output"
        self.pairs = pairs
        self.config = config.model_copy(update={"storage_patience_s": 0})
        self.tracking = TrackingConfig(uri=f"sqlite:///{folder}/mlflow.db")
        self.num_trainings = 0

    def fit(self, job: TrainingJob) -> None:
        self.num_trainings += 1
        (self.output / "predictor").mkdir(parents=True)
        origin = {**job.origin, "metrics": {}, "step": 20}
        (self.output / "predictor" / "provenance.json").write_text(json.dumps(origin))
        (self.output / "training.json").write_text(json.dumps({"key": job.key}))

    def train(self) -> TrainingResult:
        return run_training(self.config, str(self.pairs), str(self.output), tracking=self.tracking)


@pytest.fixture
def desk(
    tmp_path: Path,
    pairs: Path,
    inputs: TrainingInputs,
    config: TrainingConfig,
    monkeypatch: pytest.MonkeyPatch,
) -> Desk:
    desk = Desk(tmp_path, pairs, config)
    monkeypatch.setattr(run, "check_memory", lambda *_: None)
    monkeypatch.setattr(run, "ensure_ray", lambda: None)
    monkeypatch.setattr(run, "choose_device", lambda _: "cpu")
    monkeypatch.setattr(run, "prepare_inputs", lambda *_: inputs)
    monkeypatch.setattr(run, "fit_workers", desk.fit)
    return desk


def test_mlflow_that_was_away_at_the_end_gets_the_predictor_from_the_same_command(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise ServerAway("tracking.uri", "http://x", "stopped answering", "start it")

    with monkeypatch.context() as patch:
        patch.setattr(Tracker, "log_artifacts", away)
        patch.setattr(Tracker, "finish", away)
        with pytest.raises(ServerAway):
            desk.train()
    result = desk.train()
    assert result.reused
    assert desk.num_trainings == 1
    client = MlflowClient(tracking_uri=desk.tracking.uri)
    assert client.get_run(result.run_id).info.status == "FINISHED"
    names = {entry.path for entry in client.list_artifacts(result.run_id)}
    assert names == {"predictor", "training.json"}

    monkeypatch.setattr(run, "Tracker", away)  # a third time nothing is asked of MLflow
    assert desk.train() == result
