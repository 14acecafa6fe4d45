"""Predictor versions in the MLflow registry: aliases and download.

Versions are plain files (safetensors and JSON); nothing of a version is ever unpickled.
"""

import json
import logging
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from i2l_model.errors import InputError
from jobs import provenance
from jobs.predictor_folder import check_predictor
from jobs.registry.tracking import TrackingConfig, connect, mlflow_errors

logger = logging.getLogger(__name__)

NAME_PREFIX = "i2l-"  # a server may hold models of other projects
CANDIDATE = "candidate"
CHAMPION = "champion"
PREVIOUS_CHAMPION = "previous-champion"
HISTORY_TAG = "champion-history"
PREDICTOR_HASH_TAG = "predictor_sha256"
_MODELS_URI = re.compile(r"models:/(?P<name>[^/@]+)(?:/(?P<version>\d+)|@(?P<alias>[^/@]+))")


@dataclass(frozen=True, slots=True)
class PredictorVersion:
    """One registered version.

    Attributes:
        name: Registered model, ``i2l-<backbone>``.
        version: Number, counted from 1.
        aliases: Aliases that point at it.
        source: URI of its files.
        run_id: MLflow run that holds the files.
        tags: Hashes, revision, gate decision and times.
        created_at: Time of registration, UTC.
    """

    name: str
    version: int
    aliases: tuple[str, ...]
    source: str
    run_id: str
    tags: dict[str, str] = field(default_factory=dict)
    created_at: datetime | None = None

    @property
    def uri(self) -> str:
        """``models:/NAME/VERSION``."""
        return f"models:/{self.name}/{self.version}"


def model_name(backbone: str) -> str:
    """Registered model of a backbone; characters that MLflow refuses become dashes."""
    return NAME_PREFIX + re.sub(r"[^\w.-]+", "-", backbone).strip("-")


def check_name(name: str) -> None:
    """Refuse a model that ``ModelRegistry.names`` would not list.

    Raises:
        InputError: If the name lacks the prefix that tells this project's models from others.
    """
    if not name.startswith(NAME_PREFIX):
        fix = f"call it {NAME_PREFIX}{name}"
        raise InputError("--model", name, f"does not start with {NAME_PREFIX}", fix)


class ModelRegistry:
    """The versions of all registered predictors.

    Args:
        config: A resolved tracking configuration.

    Raises:
        InputError: If the server does not answer.
    """

    def __init__(self, config: TrackingConfig) -> None:
        self.config = config
        self.client = connect(config)

    @contextmanager
    def _errors(self, name: str, wanted: str) -> Iterator[None]:
        """Report what does not exist as ``InputError``."""
        from mlflow.exceptions import MlflowException

        try:
            with mlflow_errors(self.config.uri):
                yield
        except MlflowException as error:
            missing = error.error_code == "RESOURCE_DOES_NOT_EXIST" or (
                "alias" in str(error) and "not found" in str(error)
            )
            if not missing:
                raise
            fix = "list what is there with 'i2l versions', or register a predictor first"
            raise InputError("version", f"{name}{wanted}", "does not exist", fix) from error

    def names(self) -> list[str]:
        """Registered models of this project, sorted."""
        with mlflow_errors(self.config.uri):
            models = self.client.search_registered_models(max_results=1000)
        return sorted(model.name for model in models if model.name.startswith(NAME_PREFIX))

    def list_versions(self, name: str | None = None) -> list[PredictorVersion]:
        """All versions of ``name``, or of all registered predictors, newest first.

        Raises:
            InputError: If ``name`` is not registered.
        """
        if name is None:
            return [version for each in self.names() for version in self.list_versions(each)]
        with self._errors(name, ""):
            aliases = self._aliases(name)
            found = self.client.search_model_versions(f"name='{name}'", max_results=10_000)
        versions = [_to_version(entry, aliases) for entry in found]
        return sorted(versions, key=lambda entry: entry.version, reverse=True)

    def get(self, name: str, version: int) -> PredictorVersion:
        """One version by number.

        Raises:
            InputError: If there is no such version.
        """
        with self._errors(name, f"/{version}"):
            entry = self.client.get_model_version(name, str(version))
            return _to_version(entry, self._aliases(name))

    def find(self, name: str, version: int) -> PredictorVersion | None:
        """As ``get``, with None where there is no such version."""
        return _none_if_missing(lambda: self.get(name, version))

    def get_by_alias(self, name: str, alias: str) -> PredictorVersion:
        """The version that ``alias`` points at.

        Raises:
            InputError: If the model or the alias does not exist.
        """
        with self._errors(name, f"@{alias}"):
            entry = self.client.get_model_version_by_alias(name, alias)
            return _to_version(entry, self._aliases(name))

    def find_by_alias(self, name: str, alias: str) -> PredictorVersion | None:
        """As ``get_by_alias``, with None where there is no such model or alias."""
        return _none_if_missing(lambda: self.get_by_alias(name, alias))

    def _aliases(self, name: str) -> dict[str, int]:
        aliases = self.client.get_registered_model(name).aliases
        return {alias: int(version) for alias, version in aliases.items()}

    def create(
        self, name: str, source: str, run_id: str, tags: dict[str, str], description: str = ""
    ) -> PredictorVersion:
        """Add a version whose files lie at ``source`` inside ``run_id``."""
        from mlflow.exceptions import MlflowException

        with mlflow_errors(self.config.uri):
            try:
                self.client.create_registered_model(name)
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
            entry = self.client.create_model_version(
                name, source=source, run_id=run_id, tags=tags, description=description
            )
        return self.get(name, int(entry.version))

    def set_alias(self, name: str, alias: str, version: int) -> None:
        """Point ``alias`` at ``version`` and check that it does.

        Raises:
            InputError: If there is no such version.
            RuntimeError: If the alias points elsewhere afterwards: another process moved it.
        """
        self.get(name, version)
        with self._errors(name, f"/{version}"):
            self.client.set_registered_model_alias(name, alias, str(version))
        found = self.get_by_alias(name, alias).version
        if found != version:
            raise RuntimeError(
                f"alias {alias} of {name} points at version {found} after setting it to {version}: "
                "another process moved it"
            )

    def tag(self, version: PredictorVersion, tags: Mapping[str, str]) -> None:
        """Set tags of a version."""
        with self._errors(version.name, f"/{version.version}"):
            for key, value in tags.items():
                self.client.set_model_version_tag(version.name, str(version.version), key, value)

    def champion_history(self, name: str) -> list[int]:
        """Champions of ``name`` in the order of their promotion, the present one last.

        Raises:
            InputError: If ``name`` is not registered.
        """
        with self._errors(name, ""):
            text = self.client.get_registered_model(name).tags.get(HISTORY_TAG, "[]")
        return [int(version) for version in json.loads(text)]

    def move_champion(self, name: str, history: list[int]) -> None:
        """Make the last of ``history`` the champion and the one before it the previous one.

        The champion moves first: after a crash in between, ``champion_history`` only lacks the
        present champion. Callers hold the promotion lock.
        """
        self.set_alias(name, CHAMPION, history[-1])
        with self._errors(name, ""):
            self.client.set_registered_model_tag(name, HISTORY_TAG, json.dumps(history))
            if len(history) < 2:
                self.client.delete_registered_model_alias(name, PREVIOUS_CHAMPION)
                return
        self.set_alias(name, PREVIOUS_CHAMPION, history[-2])

    def resolve(self, models_uri: str) -> PredictorVersion:
        """The version that ``models:/NAME@ALIAS`` or ``models:/NAME/VERSION`` names.

        Raises:
            InputError: If the URI has another form, or names nothing.
        """
        match = _MODELS_URI.fullmatch(models_uri)
        if match is None:
            fix = "write models:/NAME@ALIAS or models:/NAME/VERSION"
            raise InputError("predictor", models_uri, "is no registry URI", fix)
        if match["version"]:
            return self.get(match["name"], int(match["version"]))
        return self.get_by_alias(match["name"], match["alias"])

    def download(self, models_uri: str, target: str | Path | None = None) -> Path:
        """Copy the predictor of a version into a local folder and return the folder.

        Args:
            models_uri: ``models:/NAME@ALIAS`` or ``models:/NAME/VERSION``.
            target: Folder to fill; None: a new temporary one, which the caller may delete.

        Raises:
            InputError: If there is no such version, its files are missing, or they are not those
                that were registered.
        """
        version = self.resolve(models_uri)
        folder = Path(target) if target else Path(tempfile.mkdtemp(prefix="i2l-predictor-"))
        folder.mkdir(parents=True, exist_ok=True)
        self.download_files(version, "predictor", folder)
        check_predictor(str(folder), models_uri)
        expected = version.tags.get(PREDICTOR_HASH_TAG)
        if expected and provenance.file_hash(str(folder / "model.safetensors")) != expected:
            problem = "has other weights than were registered"
            raise InputError("predictor", models_uri, problem, "register the predictor again")
        return folder

    def download_files(self, version: PredictorVersion, path: str, target: Path) -> None:
        """Copy the files of ``path`` inside a version into the local folder ``target``.

        Raises:
            InputError: If the version has no such folder.
        """
        from mlflow.artifacts import download_artifacts
        from mlflow.exceptions import MlflowException

        source = f"{version.source.rstrip('/')}/{path}"
        with tempfile.TemporaryDirectory() as scratch:
            try:
                with mlflow_errors(self.config.uri):
                    found = download_artifacts(
                        artifact_uri=source, dst_path=scratch, tracking_uri=self.config.uri
                    )
            except (MlflowException, OSError) as error:
                problem = f"cannot be read from {source}"
                fix = "check the artifact store, or register the predictor again"
                raise InputError("version", version.uri, problem, fix) from error
            shutil.copytree(found, target, dirs_exist_ok=True)


def _none_if_missing(look_up: Callable[[], PredictorVersion]) -> PredictorVersion | None:
    try:
        return look_up()
    except InputError as error:
        if error.problem != "does not exist":
            raise
        return None


def _to_version(entry: Any, aliases: dict[str, int]) -> PredictorVersion:
    number = int(entry.version)
    created = entry.creation_timestamp
    return PredictorVersion(
        name=entry.name,
        version=number,
        aliases=tuple(sorted(alias for alias, at in aliases.items() if at == number)),
        source=entry.source,
        run_id=entry.run_id or "",
        tags=dict(entry.tags or {}),
        created_at=datetime.fromtimestamp(created / 1000, UTC) if created else None,
    )
