"""Runs in MLflow: configuration, parameters, metrics, images and files of one run.

Everything that talks to MLflow lies in this package; the library is imported on first use, since
that takes seconds.
"""

import logging
import os
import re
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from i2l_model.errors import InputError
from jobs import storage
from jobs.away import ServerAway
from jobs.storage.s3_errors import s3_errors

logger = logging.getLogger(__name__)

_MAX_PARAM_CHARS = 500
_PARAMS_A_BATCH = 100
_MAX_REASON_CHARS = 200
_SQLITE = "sqlite:///"
_UNAVAILABLE = ("TEMPORARILY_UNAVAILABLE", "DEADLINE_EXCEEDED")  # 503 and 504
# The client tries again on 429, 500, 502, 503 and 504 before it says the first.
_NO_ANSWER = re.compile("Max retries exceeded|failed with (timeout )?exception")


class TrackingConfig(BaseModel):
    """Where runs and predictor versions are recorded."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    uri: str | None = Field(
        default=None,
        description="MLflow tracking and registry URI: http(s)://, postgresql:// or sqlite:///PATH."
        " None: MLFLOW_TRACKING_URI, else mlflow.db in the workspace.",
    )
    experiment: str = Field(
        default="i2l", min_length=1, description="MLflow experiment that groups the runs."
    )
    artifact_uri: str | None = Field(
        default=None,
        description="Folder for the files of a new experiment, a path or s3:// URI. None: the"
        " server's own choice, and mlartifacts beside an SQLite database.",
    )

    def resolve(self, workspace: str | Path) -> "TrackingConfig":
        """The same with an absolute ``uri``, so that every process means the same place.

        Args:
            workspace: Local folder that relative SQLite paths start from.
        """
        uri = self.uri or os.environ.get("MLFLOW_TRACKING_URI") or f"{_SQLITE}mlflow.db"
        artifact_uri = self.artifact_uri
        if "://" not in uri:
            raise InputError(
                "tracking.uri", uri, "has no scheme", "write sqlite:///PATH, http://… or postgres…"
            )
        if uri.startswith(_SQLITE):
            database = Path(workspace).absolute() / uri.removeprefix(_SQLITE)
            uri = f"{_SQLITE}{database}"
            artifact_uri = artifact_uri or str(database.parent / "mlartifacts")
        if artifact_uri is not None:
            artifact_uri = storage.absolute_uri(artifact_uri)
        return self.model_copy(update={"uri": uri, "artifact_uri": artifact_uri})

    @property
    def database(self) -> Path | None:
        """The SQLite file, or None where a server or another database keeps the records."""
        if self.uri is None or not self.uri.startswith(_SQLITE):
            return None
        return Path(self.uri.removeprefix(_SQLITE))


def connect(config: TrackingConfig) -> Any:
    """Return an ``MlflowClient`` of a resolved configuration.

    Raises:
        ServerAway: If the server does not answer.
    """
    if config.uri is None:
        raise InputError("tracking.uri", None, "is not resolved", "call TrackingConfig.resolve")
    if config.uri.startswith(("http://", "https://")):
        _check_server(config.uri)
    if config.database is not None:
        config.database.parent.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "4")
    from mlflow.tracking import MlflowClient

    for name in ("mlflow", "mlflow.store.db.utils", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    with mlflow_errors(config.uri):
        return MlflowClient(tracking_uri=config.uri, registry_uri=config.uri)


def _check_server(uri: str) -> None:
    """Fail within seconds where the client would retry for minutes."""
    try:
        with urllib.request.urlopen(uri.rstrip("/") + "/health", timeout=5):
            return
    except urllib.error.HTTPError:
        return  # it answers; the client reports refused requests
    except (OSError, ValueError) as error:
        raise ServerAway(
            "tracking.uri", uri, f"does not answer ({error})", "start the MLflow server or fix it"
        ) from error


@contextmanager
def mlflow_errors(uri: str | None) -> Iterator[None]:
    """Turn connection and permission failures into ServerAway and InputError; others pass."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        code = str(error.error_code)
        if code in ("PERMISSION_DENIED", "UNAUTHENTICATED"):
            fix = "check MLFLOW_TRACKING_USERNAME, MLFLOW_TRACKING_PASSWORD or the token"
            raise InputError("tracking.uri", uri, "refused the request", fix) from error
        if code in _UNAVAILABLE or _NO_ANSWER.search(str(error)):
            reason = next(iter(str(error).splitlines()), "no reason given")[:_MAX_REASON_CHARS]
            fix = "start the MLflow server or fix it"
            problem = f"stopped answering ({reason})"
            raise ServerAway("tracking.uri", uri, problem, fix) from error
        raise


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one level with dotted names."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{key}.")
        else:
            flat[key] = value
    return flat


class Tracker:
    """One MLflow run. Only one process of a job may write to it.

    Args:
        config: A resolved tracking configuration.

    Raises:
        InputError: If the server does not answer.
    """

    def __init__(self, config: TrackingConfig) -> None:
        self.config = config
        self._client = connect(config)
        self._run_id: str | None = None

    @property
    def run_id(self) -> str:
        """Id of the started run."""
        assert self._run_id is not None, "call start first"
        return self._run_id

    def start(
        self, run_name: str, run_id: str | None = None, tags: Mapping[str, str] | None = None
    ) -> str:
        """Start a run, or go on with ``run_id``, and return the id.

        A ``run_id`` that the server does not know starts a new run, with a warning: the records
        were lost, the training is not.
        """
        with mlflow_errors(self.config.uri):
            if run_id is not None and self._reopen(run_id):
                self._run_id = run_id
            else:
                run = self._client.create_run(
                    self._experiment_id(), run_name=run_name, tags=dict(tags or {})
                )
                self._run_id = str(run.info.run_id)
        return self.run_id

    def _reopen(self, run_id: str) -> bool:
        from mlflow.exceptions import MlflowException

        try:
            run = self._client.get_run(run_id)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            logger.warning("run %s is unknown to %s; starting a new one", run_id, self.config.uri)
            return False
        if run.info.status != "RUNNING":
            self._client.update_run(run_id, status="RUNNING")
        return True

    def _experiment_id(self) -> str:
        from mlflow.exceptions import MlflowException

        name = self.config.experiment
        experiment = self._client.get_experiment_by_name(name)
        if experiment is None:
            location = self.config.artifact_uri
            if location is not None and not storage.is_s3(location):
                location = storage.local_path(location).as_uri()
            try:
                return str(self._client.create_experiment(name, artifact_location=location))
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
                experiment = self._client.get_experiment_by_name(name)
        if experiment is None or experiment.lifecycle_stage != "active":
            fix = "restore it or choose another name"
            raise InputError("tracking.experiment", name, "is deleted", fix)
        return str(experiment.experiment_id)

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Record parameters; nested mappings get dotted names, long values are cut."""
        from mlflow.entities import Param

        flat = iter(flatten(params).items())
        with mlflow_errors(self.config.uri):
            while batch := list(islice(flat, _PARAMS_A_BATCH)):
                entities = [Param(key, str(value)[:_MAX_PARAM_CHARS]) for key, value in batch]
                self._client.log_batch(self.run_id, params=entities)

    def log_metrics(self, metrics: Mapping[str, float], step: int, time_s: float) -> None:
        """Record metrics of one step; names are paths such as ``train/loss``.

        Args:
            metrics: Values by name.
            step: Optimizer steps so far.
            time_s: When they were measured, in seconds since 1970. The same values sent again,
                because no answer came, are one entry.
        """
        from mlflow.entities import Metric

        time_ms = round(1000 * time_s)
        entities = [Metric(key, float(value), time_ms, step) for key, value in metrics.items()]
        with mlflow_errors(self.config.uri):
            self._client.log_batch(self.run_id, metrics=entities)

    def log_image(self, image: Image.Image, name: str, step: int) -> None:
        """Record an image of one step under ``name``."""
        with self._artifact_errors():
            self._client.log_image(self.run_id, image, key=name, step=step)

    def log_artifacts(self, folder: str | Path, path: str | None = None) -> None:
        """Upload the files below the local ``folder`` to ``path`` inside the run."""
        with self._artifact_errors():
            self._client.log_artifacts(self.run_id, str(folder), path)

    @contextmanager
    def _artifact_errors(self) -> Iterator[None]:
        """As `mlflow_errors`; the client itself writes to a store in S3, which may be away too."""
        with mlflow_errors(self.config.uri), s3_errors(f"files of {self.config.uri}"):
            yield

    def artifact_sizes(self, path: str) -> dict[str, int]:
        """Name → bytes of the files directly in ``path`` of the run, as the store reports them."""
        with mlflow_errors(self.config.uri):
            entries = self._client.list_artifacts(self.run_id, path)
        return {Path(e.path).name: int(e.file_size or 0) for e in entries if not e.is_dir}

    def artifact_uri(self, path: str) -> str:
        """URI of ``path`` inside the run's files."""
        with mlflow_errors(self.config.uri):
            root = str(self._client.get_run(self.run_id).info.artifact_uri)
        return f"{root.rstrip('/')}/{path}"

    def finish(self, status: str = "FINISHED") -> None:
        """Close the run with ``status`` FINISHED, FAILED or KILLED."""
        with mlflow_errors(self.config.uri):
            self._client.set_terminated(self.run_id, status)
