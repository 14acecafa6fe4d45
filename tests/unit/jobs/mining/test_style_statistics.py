"""Statistics see how a picture is made, and leave alone what is no matter of style."""

import numpy as np
import pytest
from numpy.typing import NDArray

from jobs.corpus.render import render
from jobs.corpus.styles import sample_style
from jobs.mining import style_statistics as measured
from jobs.mining.style_statistics import statistics

Pixels = NDArray[np.uint8]
STYLES = range(4)


@pytest.fixture(scope="module")
def pictures() -> list[Pixels]:
    return [render("house", sample_style(style, 3), variant=2).image for style in STYLES]


def grey(rows: NDArray[np.float64]) -> Pixels:
    return np.repeat(np.clip(rows, 0, 255).astype(np.uint8)[..., None], 3, axis=2)


def test_one_at_a_time_equals_together(pictures: list[Pixels]) -> None:
    together = statistics(pictures)
    alone = np.concatenate([statistics([picture]) for picture in pictures])
    assert together.dtype == np.float32
    assert np.allclose(together, alone, atol=1e-4)


def test_pictures_of_any_size_have_as_many_statistics(pictures: list[Pixels]) -> None:
    shapes = [(64, 64), (33, 70), (500, 320), (1000, 1000)]
    odd = [np.full((*shape, 3), 200, np.uint8) for shape in shapes]
    rows = statistics(odd)
    assert np.isfinite(rows).all()
    assert rows.shape[1] == statistics(pictures).shape[1]


def test_channels_in_another_order_change_little_but_tones(pictures: list[Pixels]) -> None:
    """Which colours there are is not measured, only their tones and their number."""
    swapped = [grey(picture[..., 1].astype(float)) for picture in pictures]
    doubled = [np.roll(picture, 1, axis=2) for picture in swapped]
    assert np.allclose(statistics(swapped), statistics(doubled))


def test_flatness_falls_with_grain() -> None:
    rng = np.random.default_rng(0)
    clean = np.full((64, 64), 120.0)
    shares = [
        measured._flatness(grey(clean + rng.normal(0, sigma, clean.shape)))[2]
        for sigma in (0, 1, 5, 20)
    ]
    assert shares[0] == 1
    assert shares == sorted(shares, reverse=True)
    assert shares[-1] < 0.1


def test_a_pixel_grid_shows_at_its_period() -> None:
    rng = np.random.default_rng(0)
    blocks = rng.uniform(0, 1, (16, 16)).repeat(4, axis=0).repeat(4, axis=1).astype(np.float32)
    periods = measured._periods(blocks)
    assert periods[3] > 0.5
    assert periods[3] > periods[[0, 1, 2]].max() + 0.3


def test_local_patterns_turn_with_the_picture() -> None:
    lightness = np.random.default_rng(0).uniform(0, 1, (40, 40)).astype(np.float32)
    turned = np.ascontiguousarray(np.rot90(lightness))
    for radius, step in measured.PATTERNS:
        ours, theirs = (measured._local_patterns(x, radius, step) for x in (lightness, turned))
        assert np.allclose(ours, theirs, atol=1e-6)


def test_few_colours_are_told_from_many() -> None:
    rng = np.random.default_rng(0)
    two = rng.choice([0, 255], (64, 64, 1)).repeat(3, axis=2).astype(np.uint8)
    many = rng.integers(0, 256, (64, 64, 3)).astype(np.uint8)
    few_colours, many_colours = measured._colour_counts(two), measured._colour_counts(many)
    assert few_colours[0] < many_colours[0]  # distinct ones
    assert few_colours[1] == pytest.approx(np.log(2), abs=0.01)  # entropy
    assert few_colours[3] == pytest.approx(1.0)  # the two most frequent fill it


def test_edges_point_where_the_stripes_do() -> None:
    wave = 127 + 120 * np.sin(np.arange(64) / 3)
    across = grey(np.broadcast_to(wave[None], (64, 64)))
    along = grey(np.broadcast_to(wave[:, None], (64, 64)))
    rows = statistics([across, along])
    assert np.linalg.norm(rows[0] - rows[1]) > 1
