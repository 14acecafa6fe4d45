"""Fitting the style metric: grids that leave kinds out, and compression that is no style."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from i2l_model.assets import asset_path
from jobs.backbone import style_metric
from jobs.backbone.style_metric import GRIDS, WITHOUT, train_style_metric
from jobs.corpus.families import FamilyConfig
from jobs.corpus.stylegrid import CorpusConfig
from jobs.mining.style_descriptor import METRIC_ASSET

TINY = (
    CorpusConfig(num_styles=6, images_per_style=4, seed=3, families=FamilyConfig(without=WITHOUT)),
)


def test_grids_leave_the_same_kinds_out_and_are_of_different_seeds() -> None:
    assert {grid.families.without for grid in GRIDS if grid.families} == {WITHOUT}
    assert len({grid.seed for grid in GRIDS}) == len(GRIDS)


def test_fitting_again_gives_the_same_metric() -> None:
    first, again = train_style_metric(TINY), train_style_metric(TINY)
    assert np.isfinite(first.whiten).all()
    assert np.allclose(first.whiten, again.whiten, rtol=1e-4, atol=1e-4)


def test_the_command_writes_weights_and_what_they_were_fitted_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(style_metric, "train_style_metric", lambda: train_style_metric(TINY))
    monkeypatch.setattr(sys, "argv", ["style_metric", str(tmp_path / "metric")])
    style_metric.main()
    assert (tmp_path / "metric" / "model.safetensors").is_file()
    shipped = json.loads((asset_path(METRIC_ASSET) / "config.json").read_text())
    assert json.loads((tmp_path / "metric" / "config.json").read_text()) == shipped
