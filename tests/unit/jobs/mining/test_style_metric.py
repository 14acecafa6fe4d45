"""The metric finds what a style holds constant, on planted data."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from i2l_model.assets import asset_path
from jobs.mining.style_descriptor import METRIC_ASSET
from jobs.mining.style_metric import LIMIT, StyleMetric, fit_metric, limited

NUM_STYLES, IMAGES, SIGNAL, NUISANCE = 60, 8, 6, 40


def planted(seed: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """A few statistics that are the style's, among many that vary inside it."""
    rng = np.random.default_rng(seed)
    style = np.repeat(np.arange(NUM_STYLES), IMAGES)
    signal = rng.normal(size=(NUM_STYLES, SIGNAL))[style]
    signal += 0.1 * rng.normal(size=signal.shape)
    varying = rng.normal(size=(len(style), NUISANCE))
    return np.concatenate([signal, varying], axis=1).astype(np.float32), style


def nearest_is_right(rows: NDArray[np.float32], style: NDArray[np.int64]) -> float:
    similarity = rows @ rows.T
    np.fill_diagonal(similarity, -1)
    return float((style[similarity.argmax(axis=1)] == style).mean())


def plain(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    scaled = (rows - rows.mean(axis=0)) / rows.std(axis=0)
    return scaled / np.linalg.norm(scaled, axis=1, keepdims=True)


def test_styles_that_were_not_fitted_become_near() -> None:
    metric = fit_metric(*planted(seed=1))
    rows, style = planted(seed=2)
    assert nearest_is_right(plain(rows), style) < 0.5
    assert nearest_is_right(metric(rows), style) > 0.9


def test_vectors_are_unit_float32() -> None:
    rows, style = planted(seed=1)
    vectors = fit_metric(rows, style)(rows)
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_a_style_of_one_picture_changes_no_covariance() -> None:
    rows, style = planted(seed=1)
    lonely = np.append(style, NUM_STYLES)
    with_one = fit_metric(np.concatenate([rows, rows[:1]]), lonely)
    without = fit_metric(rows, style)
    assert np.abs(with_one.whiten - without.whiten).max() < 0.05 * np.abs(without.whiten).max()


def test_unusual_values_are_bent_and_order_stays() -> None:
    values = np.linspace(-50, 50, 101).astype(np.float32)
    bent = limited(values)
    assert np.abs(bent).max() <= LIMIT
    assert (np.diff(bent) >= 0).all()
    assert limited(np.array([0.1], np.float32))[0] == pytest.approx(0.1, rel=0.01)


def test_saved_and_loaded_is_the_same(tmp_path: Path) -> None:
    rows, style = planted(seed=1)
    metric = fit_metric(rows, style)
    metric.save(tmp_path)
    assert np.array_equal(StyleMetric.load(tmp_path)(rows), metric(rows))


def test_the_shipped_metric_is_finite_and_square() -> None:
    metric = StyleMetric.load(asset_path(METRIC_ASSET))
    D = len(metric.mean)
    assert metric.whiten.shape == (D, D)
    for part in (metric.mean, metric.scale, metric.whiten, metric.centre):
        assert part.dtype == np.float32
        assert np.isfinite(part).all()
    assert (metric.scale > 0).all()
