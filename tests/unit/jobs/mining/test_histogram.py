"""Histograms: every finite value once, in pieces as in one."""

import numpy as np
import pytest

from jobs.mining import histogram as module
from jobs.mining.histogram import histogram, quantiles


def test_every_finite_value_is_counted_once() -> None:
    values = [0.0, 0.5, 1.0, float("nan"), float("inf"), -3.0, 8.0]
    data = histogram({"a": values, "b": [0.2]}, num_bins=4, low=0.0, high=1.0)
    assert data.counts == {"a": [2, 0, 1, 2], "b": [1, 0, 0, 0]}
    assert data.total == 6


def test_pieces_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    whole = histogram({"a": values})
    monkeypatch.setattr(module, "_CHUNK", 37)
    assert histogram({"a": values}) == whole


def test_quantiles_skip_what_is_not_known() -> None:
    assert quantiles([np.nan, 1.0, 2.0, 3.0])["q50"] == 2.0
    assert quantiles([np.nan]) == {}
