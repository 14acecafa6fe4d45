import socket
import time
from pathlib import Path

import pytest
from PIL import Image

from i2l_model.errors import InputError
from jobs.away import ServerAway
from jobs.registry.tracking import Tracker, TrackingConfig, connect, flatten, mlflow_errors


@pytest.fixture(autouse=True)
def no_server_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def test_the_default_lies_in_the_workspace(tmp_path: Path) -> None:
    config = TrackingConfig().resolve(tmp_path)
    assert config.uri == f"sqlite:///{tmp_path}/mlflow.db"
    assert config.artifact_uri == str(tmp_path / "mlartifacts")
    assert config.resolve(tmp_path / "elsewhere") == config


def test_the_environment_names_a_server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    config = TrackingConfig().resolve(tmp_path)
    assert (config.uri, config.artifact_uri) == ("http://mlflow:5000", None)
    assert TrackingConfig(uri="sqlite:///x.db").resolve(tmp_path).database == tmp_path / "x.db"


def test_a_path_is_no_tracking_uri(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no scheme"):
        TrackingConfig(uri="mlflow.db").resolve(tmp_path)


def test_a_server_that_is_down_is_reported_within_seconds() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{unused.getsockname()[1]}"
    started = time.monotonic()
    with pytest.raises(InputError, match="does not answer"):
        connect(TrackingConfig(uri=uri))
    assert time.monotonic() - started < 10


def test_nested_settings_become_dotted_names() -> None:
    assert flatten({"a": {"b": 1, "c": {"d": [2]}}, "e": None}) == {
        "a.b": 1,
        "a.c.d": [2],
        "e": None,
    }


def test_a_run_records_and_goes_on(tracking: TrackingConfig, tmp_path: Path) -> None:
    tracker = Tracker(tracking)
    run_id = tracker.start("train", tags={"kind": "training"})
    tracker.log_params({"training": {"steps": 3, "text": "x" * 9000}, **many_params(150)})
    tracker.log_metrics({"train/loss": 0.5}, step=1, time_s=1000.25)
    tracker.finish("FAILED")

    again = Tracker(tracking)
    assert again.start("train", run_id=run_id) == run_id
    again.log_metrics({"train/loss": 0.25}, step=2, time_s=1001.0)
    again.log_image(Image.new("RGB", (4, 4)), "validation", step=2)
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "a.txt").write_text("abc")
    again.log_artifacts(tmp_path / "files", "some/place")
    assert again.artifact_sizes("some/place") == {"a.txt": 3}
    again.finish()

    client = connect(tracking)
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["training.steps"] == "3"
    assert run.data.params["p149"] == "149"
    assert run.data.tags["kind"] == "training"
    history = client.get_metric_history(run_id, "train/loss")
    assert [(metric.step, metric.value) for metric in history] == [(1, 0.5), (2, 0.25)]
    assert any("validation" in entry.path for entry in client.list_artifacts(run_id, "images"))


def many_params(num: int) -> dict[str, int]:
    return {f"p{i}": i for i in range(num)}


def test_a_lost_run_starts_anew_with_a_warning(
    tracking: TrackingConfig, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = Tracker(tracking)
    run_id = tracker.start("train", run_id="0" * 32)
    assert run_id != "0" * 32
    assert "is unknown" in caplog.text


def test_a_deleted_experiment_is_an_input_error(tracking: TrackingConfig) -> None:
    gone = tracking.model_copy(update={"experiment": "gone"})
    client = connect(gone)
    client.delete_experiment(client.create_experiment("gone"))
    with pytest.raises(InputError, match="is deleted"):
        Tracker(gone).start("train")


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("TEMPORARILY_UNAVAILABLE", "(sqlite3.OperationalError) database is locked\n[SQL: ...]"),
        ("INTERNAL_ERROR", "API request to http://x failed with exception Max retries exceeded"),
        ("INTERNAL_ERROR", "API request to http://x failed with timeout exception read"),
    ],
)
def test_what_passes_by_itself_is_told_apart(code: str, text: str) -> None:
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import ErrorCode

    with pytest.raises(ServerAway, match="stopped answering") as away, mlflow_errors("http://x"):
        raise MlflowException(text, ErrorCode.Value(code))
    assert "SQL:" not in str(away.value)


def test_a_request_that_cannot_succeed_is_no_server_that_is_away() -> None:
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

    with pytest.raises(MlflowException, match="deleted"), mlflow_errors("http://x"):
        raise MlflowException("the run is deleted", INVALID_PARAMETER_VALUE)
