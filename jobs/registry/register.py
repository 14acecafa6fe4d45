"""Registration: one version = predictor, report, sample LoRAs and images, all as plain files."""

import json
import logging
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from i2l_model.errors import InputError
from jobs import provenance, storage
from jobs.evaluation.schema import PAGE_FOLDER, REPORT_FILE
from jobs.predictor_folder import check_predictor, read_record
from jobs.registry.tracking import Tracker, TrackingConfig
from jobs.registry.versions import (
    CANDIDATE,
    PREDICTOR_HASH_TAG,
    ModelRegistry,
    PredictorVersion,
    check_name,
    model_name,
)

logger = logging.getLogger(__name__)

REPORT_HASH_TAG = "report_sha256"
_ROOT = "version"  # folder of the version inside its MLflow run


@dataclass(frozen=True, slots=True)
class _Staged:
    """The version's files in a local folder, and what they say of themselves."""

    folder: Path
    config: dict[str, Any]
    provenance: dict[str, Any]
    report: dict[str, Any]
    predictor_sha256: str
    report_sha256: str


def register_version(
    tracking: TrackingConfig,
    predictor_uri: str,
    report_uri: str,
    *,
    samples_uri: str | None = None,
    name: str | None = None,
) -> PredictorVersion:
    """Register a predictor with its report and samples, and point ``candidate`` at the version.

    The same predictor and report give the version that is already there.

    Args:
        tracking: A resolved tracking configuration.
        predictor_uri: Folder with config.json, model.safetensors and provenance.json.
        report_uri: The evaluation's report.json, or the folder that holds it; the page in
            ``report`` beside it is registered with it.
        samples_uri: Folder with loras/*.safetensors and images/*.png; None: ``samples`` beside
            the report.
        name: Registered model, ``i2l-…``; None: ``i2l-<backbone>``.

    Raises:
        InputError: If the name lacks ``i2l-``, a file is missing, the samples are incomplete, the
            report is of another predictor or backbone, or the server does not answer.
    """
    if name is not None:
        check_name(name)
    registry = ModelRegistry(tracking)
    with tempfile.TemporaryDirectory(prefix="i2l-register-") as scratch:
        staged = _stage(Path(scratch), predictor_uri, report_uri, samples_uri)
        name = name or model_name(str(staged.config["backbone"]))
        tags = _tags(staged)
        version = _find(registry, name, tags)
        if version is None:
            version = _upload(tracking, registry, name, staged, tags)
        else:
            logger.info("%s holds this predictor and report already", version.uri)
    if registry.find_by_alias(name, CANDIDATE) != version:
        registry.set_alias(name, CANDIDATE, version.version)
    return registry.get(name, version.version)


def _stage(folder: Path, predictor_uri: str, report_uri: str, samples_uri: str | None) -> _Staged:
    if not storage.exists(storage.join_uri(predictor_uri, "provenance.json")):
        fix = "name the predictor folder that i2l train wrote"
        raise InputError("predictor", predictor_uri, "has no provenance.json", fix)
    if not report_uri.endswith(".json"):  # the folder that i2l evaluate wrote
        report_uri = storage.join_uri(report_uri, REPORT_FILE)
    if not storage.exists(report_uri):
        raise InputError("report", report_uri, "does not exist", "run i2l evaluate first")
    report_folder = report_uri.rpartition("/")[0] or "."
    samples_uri = samples_uri or storage.join_uri(report_folder, "samples")
    check_predictor(
        str(storage.download_folder(predictor_uri, folder / "predictor")), predictor_uri
    )
    _copy_report(report_uri, storage.join_uri(report_folder, PAGE_FOLDER), folder / "report")
    _copy_samples(samples_uri, folder / "samples")
    config, origin = (
        read_record(str(folder / "predictor"), name, predictor_uri)
        for name in ("config.json", "provenance.json")
    )
    if not isinstance(config.get("backbone"), str):
        fix = "name the predictor folder that i2l train wrote"
        raise InputError("predictor", predictor_uri, "names no backbone in config.json", fix)
    report = _read_report(folder / "report" / REPORT_FILE, report_uri)
    if report.get("backbone") not in (None, config["backbone"]):
        fix = f"evaluate the predictor on {config['backbone']}"
        raise InputError("report", report_uri, f"is about backbone {report['backbone']}", fix)
    predictor = report.get("predictor")
    judged = predictor.get("hash") if isinstance(predictor, dict) else None
    if judged != provenance.predictor_hash(str(folder / "predictor")):
        fix = "evaluate this predictor and give that report"
        raise InputError("report", report_uri, "is about another predictor", fix)
    return _Staged(
        folder=folder,
        config=config,
        provenance=origin,
        report=report,
        predictor_sha256=provenance.file_hash(str(folder / "predictor" / "model.safetensors")),
        report_sha256=provenance.file_hash(report_uri),
    )


def _copy_report(report_uri: str, page_folder: str, target: Path) -> None:
    """The report, under the name that the gate reads, and its page; nothing else beside them."""
    storage.write_bytes(target / REPORT_FILE, storage.read_bytes(report_uri))
    root = storage.absolute_uri(page_folder)
    if not storage.exists(storage.join_uri(root, "index.html")):
        return
    for uri in storage.list_files(root):
        name = uri[len(root) :].lstrip("/")
        if "/" not in name and name.endswith((".html", ".png")):
            storage.write_bytes(target / PAGE_FOLDER / name, storage.read_bytes(uri))


def _copy_samples(source: str, target: Path) -> None:
    fix = "give a folder with loras/*.safetensors and images/*.png, as i2l evaluate writes"
    if not storage.exists(source):
        raise InputError("samples", source, "does not exist", fix)
    storage.download_folder(source, target)
    for pattern in ("loras/*.safetensors", "images/*.png"):
        if not any(target.glob(pattern)):
            raise InputError("samples", source, f"holds no {pattern}", fix)


def _read_report(path: Path, report_uri: str) -> dict[str, Any]:
    fix = "evaluate the predictor again"
    try:
        value = json.loads(path.read_bytes())
    except ValueError as error:
        raise InputError("report", report_uri, f"is no JSON ({error})", fix) from error
    if not isinstance(value, dict):
        raise InputError("report", report_uri, "holds no JSON object", fix)
    return value


def _tags(staged: _Staged) -> dict[str, str]:
    origin = staged.provenance
    return {
        PREDICTOR_HASH_TAG: staged.predictor_sha256,
        REPORT_HASH_TAG: staged.report_sha256,
        "pairs_hash": str(origin.get("pairs_hash", "unknown")),
        "git_sha": str(origin.get("git_sha", "unknown")),
        "config_hash": str(origin.get("config_hash", "unknown")),
        "training_run_id": str(origin.get("run_id", "unknown")),
        "step": str(origin.get("step", "unknown")),
        "backbone": str(staged.config["backbone"]),
    }


def _find(registry: ModelRegistry, name: str, tags: Mapping[str, str]) -> PredictorVersion | None:
    """The version with the same predictor and report, if there is one."""
    if name not in registry.names():
        return None
    wanted = {key: tags[key] for key in (PREDICTOR_HASH_TAG, REPORT_HASH_TAG)}
    for version in registry.list_versions(name):
        if wanted.items() <= version.tags.items():
            return version
    return None


def _upload(
    tracking: TrackingConfig,
    registry: ModelRegistry,
    name: str,
    staged: _Staged,
    tags: dict[str, str],
) -> PredictorVersion:
    tracker = Tracker(tracking)
    tracker.start(f"register {name}", tags={**tags, "kind": "registration"})
    try:
        tracker.log_params(staged.provenance.get("training", {}))
        tracker.log_artifacts(staged.folder, _ROOT)
        _check_upload(tracker, staged.folder / "predictor")
        version = registry.create(
            name,
            source=tracker.artifact_uri(_ROOT),
            run_id=tracker.run_id,
            tags=tags,
            description=f"i2L predictor for {tags['backbone']}, step {tags['step']}",
        )
    except BaseException:
        tracker.finish("FAILED")
        raise
    tracker.finish()
    logger.info("registered %s", version.uri)
    return version


def _check_upload(tracker: Tracker, folder: Path) -> None:
    """Compare sizes in the artifact store with the files sent."""
    stored = tracker.artifact_sizes(f"{_ROOT}/predictor")
    for path in folder.iterdir():
        if stored.get(path.name) != path.stat().st_size:
            raise RuntimeError(
                f"{path.name} has {stored.get(path.name)} bytes in the artifact store instead of "
                f"{path.stat().st_size}; the upload is not whole"
            )
