"""Writes the report page, one file that needs no other, and the grids as pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from jobs import storage
from jobs.evaluation import report_view
from jobs.evaluation.chunk import ChunkPlan, ChunkResult
from jobs.evaluation.config import EvaluationConfig
from jobs.evaluation.report_pictures import (
    PictureGrid,
    build_grids,
    data_uri,
    draw_grid,
    png_of,
)
from jobs.evaluation.schema import PAGE_FOLDER

TEMPLATE = "report.html.j2"


def write_report(
    output_uri: str,
    report: Mapping[str, Any],
    chunks: Sequence[ChunkResult],
    plans: Sequence[ChunkPlan],
    config: EvaluationConfig,
) -> None:
    """Write report/index.html and report/grid-<prompt>.png below `output_uri`."""
    best_budget = report["style_lora"].get("best_num_steps")
    grids = build_grids(chunks, plans, config, best_budget=best_budget)
    folder = storage.join_uri(output_uri, PAGE_FOLDER)
    for position, grid in enumerate(grids):
        picture = draw_grid(
            grid, cell_px=config.report_image_size, labels=report_view.labels(grid.columns)
        )
        storage.write_bytes(storage.join_uri(folder, f"grid-{position}.png"), png_of(picture))
    page = render_page(report, grids)
    storage.write_bytes(storage.join_uri(folder, "index.html"), page.encode())


def render_page(report: Mapping[str, Any], grids: Sequence[PictureGrid]) -> str:
    """The page as HTML."""
    environment = Environment(
        loader=PackageLoader("jobs.evaluation"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    conditions = list(report["metrics"])
    style_metrics = [m for m in report_view.METRIC_TITLES if m in report["metrics"]["null"]]
    return environment.get_template(TEMPLATE).render(
        report=report,
        grids=grids,
        data_uri=data_uri,
        label=report_view.condition_label,
        held_out_claim=report_view.held_out_claim(report),
        tiles=report_view.tiles(report),
        panels=report_view.style_panels(report),
        loss=report_view.loss_panel(report),
        condition_labels=report_view.labels(conditions),
        metric_rows=report_view.metric_rows(report),
        worst_labels=report_view.labels(report["robustness"]),
        worst_rows=report_view.worst_rows(report),
        budget_columns=[report_view.METRIC_TITLES[m] for m in style_metrics],
        budget_rows=report_view.budget_rows(report, style_metrics),
        match_sentences=[
            (report_view.condition_label(name), report_view.match_sentence(report, name))
            for name in (f"i2l_{num_refs}" for num_refs in report["num_refs"])
        ],
        provenance=json.dumps(report["provenance"], indent=2, ensure_ascii=False),
    )
