"""Finding a predictor by folder, URI, registry name or the name of the shipped one."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from i2l_model.assets import asset_path, available_assets
from i2l_model.errors import InputError
from jobs.training.config import TrainingConfig
from jobs.training.predictor_options import PredictorOptions
from pipelines.overrides import validation_problem

if TYPE_CHECKING:
    from jobs.registry.tracking import TrackingConfig

SHIPPED_PREDICTOR = "tiny-predictor"


@contextmanager
def local_predictor(predictor: str | None, tracking: "TrackingConfig") -> Iterator[Path]:
    """Give a local folder with the predictor's files; a downloaded one is removed afterwards.

    Args:
        predictor: Folder, file:// or s3:// URI, models:/NAME@ALIAS, models:/NAME/VERSION, or the
            name of the shipped predictor, which None takes too.
        tracking: Resolved settings of the registry that models:/ means.

    Raises:
        InputError: If there is no such predictor.
    """
    from jobs import storage
    from jobs.predictor_folder import check_predictor

    if predictor is None or predictor == SHIPPED_PREDICTOR:
        yield asset_path(SHIPPED_PREDICTOR)
        return
    if predictor in available_assets():
        fix = f"name a predictor folder, models:/NAME@champion or {SHIPPED_PREDICTOR}"
        raise InputError("--predictor", predictor, "is shipped, but is no predictor", fix)
    with tempfile.TemporaryDirectory(prefix="i2l-predictor-") as scratch:
        if predictor.startswith("models:/"):
            from jobs.registry.versions import ModelRegistry

            require_registry(tracking)
            yield ModelRegistry(tracking).download(predictor, scratch)
            return
        if storage.is_s3(predictor):
            folder = storage.download_folder(predictor, scratch)
        else:
            folder = storage.local_path(predictor)
            if not folder.is_dir():
                raise InputError(
                    "--predictor", predictor, "is no folder",
                    "name a predictor folder, or models:/NAME@champion",
                )  # fmt: skip
        check_predictor(str(folder), predictor)
        yield folder


def require_registry(tracking: "TrackingConfig") -> None:
    """Refuse to make an empty registry where one is expected to be.

    Raises:
        InputError: If the SQLite file does not exist.
    """
    database = tracking.database
    if database is not None and not database.is_file():
        raise InputError(
            "--workspace",
            database.parent.parent,
            "has no registry",
            "name the --workspace of i2l run or i2l register, or set tracking.uri",
        )


def warm_started(
    config: TrainingConfig, warm_start: str | None, tracking: "TrackingConfig"
) -> tuple[TrainingConfig, str | None]:
    """Return the training settings with the sizes of the predictor to start from, and its place.

    Args:
        config: Training settings.
        warm_start: Name of a shipped predictor, folder, URI or models:/ URI; None starts anew.
        tracking: Resolved settings of the registry that models:/ means.

    Raises:
        InputError: If there is no such predictor, or it does not fit the other settings.
    """
    if warm_start is None:
        return config, None
    from jobs.predictor_folder import read_record

    if warm_start.startswith("models:/"):
        place = warm_start
        with local_predictor(warm_start, tracking) as folder:
            stored = read_record(str(folder), "config.json", warm_start, field="warm_start")
    else:
        place = initial_folder(warm_start)
        stored = read_record(place, "config.json", warm_start, field="warm_start")
    sizes = {name: stored[name] for name in PredictorOptions.model_fields if name in stored}
    predictor = {**config.predictor.model_dump(), **sizes}
    settings = {**config.model_dump(), "predictor": predictor}
    try:
        return TrainingConfig.model_validate(settings), place
    except ValidationError as error:
        raise validation_problem(error, TrainingConfig, "the recipe", "training") from None


def initial_folder(warm_start: str) -> str:
    """Folder or URI of an initial predictor that no registry holds.

    Raises:
        InputError: If there is none.
    """
    from jobs import storage

    place = str(asset_path(warm_start)) if warm_start in available_assets() else warm_start
    if not storage.exists(storage.join_uri(place, "config.json")):
        known = "a predictor folder, models:/NAME@ALIAS or the name of a shipped predictor"
        raise InputError("warm_start", warm_start, "has no config.json", f"name {known}")
    return place
