"""The page at the top of a workspace: pictures, results, versions, and where everything lies."""

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from pipelines.steps import StepContext

if TYPE_CHECKING:
    from jobs.registry.versions import PredictorVersion
    from pipelines.workspace import Workspace

logger = logging.getLogger(__name__)

_TEMPLATE = "index.html.j2"
_MAX_PICTURES = 8
# Metrics of the report shown here, with what they say; the report itself has all.
_METRICS = {
    "style_overall": "style distance to the oracle image, lower is better",
    "style_background": "the same for the background alone",
    "style_references": "style distance to the references, lower is better",
    "prompt_accuracy": "share of samples whose prompted content is read",
    "leakage": "share of samples that show a reference's content",
    "kid": "kernel distance to real pictures, lower is better",
}
_CONDITIONS = {
    "null": "no LoRA",
    "wrong_refs": "another style's references",
    "style_lora": "LoRA trained per style",
    "real": "real pictures",
}


@dataclass(frozen=True)
class Place:
    """A file or folder to open, relative to the page."""

    label: str
    path: str
    what: str


def write_index_page(context: StepContext) -> Path:
    """Write index.html with whatever the workflow has reached, and return its path.

    The page shows files of the workspace by relative links, so the folder can be moved.
    """
    workspace = context.workspace
    report = _read_report(workspace)
    page = (
        _environment()
        .get_template(_TEMPLATE)
        .render(
            recipe=context.recipe,
            written=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M"),
            root=str(workspace.root),
            outputs=context.outputs,
            pictures=_pictures(workspace),
            metrics=_METRICS,
            rows=_result_rows(report),
            num_styles=report.get("num_styles"),
            versions=_versions(context),
            places=_places(workspace),
        )
    )
    workspace.index_page.write_text(page, encoding="utf-8")
    return workspace.index_page


def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("pipelines"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip


def _read_report(workspace: "Workspace") -> dict[str, Any]:
    path = workspace.folder("report") / "report.json"
    if not path.is_file():
        return {}
    report: dict[str, Any] = json.loads(path.read_bytes())
    return report


def _result_rows(report: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """One row a condition, one cell a metric of ``_METRICS``."""
    rows = []
    for condition, found in report.get("metrics", {}).items():
        cells = [_estimate(found.get(metric)) for metric in _METRICS]
        rows.append((_condition_label(condition), cells))
    return rows


def _condition_label(condition: str) -> str:
    if condition.startswith("i2l_"):
        number = condition.removeprefix("i2l_")
        return f"i2L, {number} reference{'' if number == '1' else 's'}"
    return _CONDITIONS.get(condition, condition)


def _estimate(value: Mapping[str, Any] | None) -> str:
    """Mean and 95 % interval of one figure."""
    if not value or value.get("mean") is None:
        return "–"
    text = _number(value["mean"])
    if value.get("lo") is None or value.get("hi") is None:
        return text
    return f"{text} [{_number(value['lo'])}, {_number(value['hi'])}]"


def _number(value: float) -> str:
    return f"{value:.3f}" if abs(value) < 1000 else f"{value:.3g}"


def _pictures(workspace: "Workspace") -> list[str]:
    """Picture grids of the evaluation, relative to the page."""
    report = workspace.folder("report") / "report"
    found = sorted(path for suffix in ("png", "jpg") for path in report.rglob(f"*.{suffix}"))
    return [_relative(workspace, path) for path in found[:_MAX_PICTURES]]


def _versions(context: StepContext) -> "list[PredictorVersion]":
    """Registered versions, newest first; none before the first registration."""
    tracking = context.tracking
    if tracking.database is not None and not tracking.database.is_file():
        return []
    if "version" not in context.outputs:
        return []
    from jobs.registry.versions import ModelRegistry

    return ModelRegistry(tracking).list_versions(context.outputs["version"]["model"])


def _places(workspace: "Workspace") -> list[Place]:
    """What there is to open so far."""
    candidates = (
        ("Evaluation report", workspace.folder("report") / "report" / "index.html",
         "every metric with intervals, picture grids"),
        ("Mining report", workspace.folder("pairs") / "report" / "index.html",
         "what was kept and dropped, and why"),
        ("Predictor", workspace.folder("predictor") / "predictor",
         "config.json, model.safetensors, provenance.json"),
        ("Checkpoints", workspace.folder("predictor") / "checkpoints",
         "what a stopped training continues from"),
        ("Pairs", workspace.folder("pairs"), "index.parquet, shards and manifest.json"),
        ("Shards", workspace.folder("shards"), "the input images"),
        ("Registry", workspace.tracking, "MLflow records and files of every run and version"),
        ("Earlier outputs", workspace.archive, "moved aside when settings changed"),
        ("Log", workspace.log_file, "everything the jobs said"),
    )  # fmt: skip
    return [
        Place(label, _relative(workspace, path), what)
        for label, path, what in candidates
        if path.exists()
    ]


def _relative(workspace: "Workspace", path: Path) -> str:
    return Path(os.path.relpath(path, workspace.root)).as_posix()
