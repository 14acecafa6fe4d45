import dataclasses

import numpy as np
import pytest

from jobs.corpus.contents import CONTENT_NAMES
from jobs.corpus.render import render
from jobs.corpus.styles import BACKGROUNDS, MEDIA, SHADINGS, TEXTURES, sample_style

STYLE = dataclasses.replace(
    sample_style(5, 1),
    medium_kind="clean",
    grain_strength=0.0,
    edge_amplitude=0.0,
    outline_width=0.06,
    softness=0.0,
)


@pytest.mark.parametrize("content", CONTENT_NAMES)
def test_every_content_draws_a_figure_of_its_own(content: str) -> None:
    rendering = render(content, STYLE, size=32)
    assert rendering.image.shape == (32, 32, 3)
    assert 0.03 < rendering.figure.mean() < 0.7
    others = [render(name, STYLE, size=32).figure for name in CONTENT_NAMES if name != content]
    assert min(np.abs(rendering.figure - other).mean() for other in others) > 0.01


@pytest.mark.parametrize("size", [32, 64, 512])
def test_sizes(size: int) -> None:
    assert render("house", STYLE, size=size).image.shape == (size, size, 3)


def test_same_arguments_same_bytes_and_variants_differ() -> None:
    first = render("boat", STYLE, variant=3).image
    assert np.array_equal(first, render("boat", STYLE, variant=3).image)
    assert not np.array_equal(first, render("boat", STYLE, variant=4).image)


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("background_kind", BACKGROUNDS),
        ("texture_kind", TEXTURES),
        ("shading_kind", SHADINGS),
        ("medium_kind", MEDIA),
        ("outline_width", (0.0, 0.08)),
        ("edge_amplitude", (0.0, 0.05)),
        ("grain_strength", (0.0, 0.15)),
        ("softness", (0.0, 0.05)),
        ("primary", ((1.0, 0.0, 0.0), (0.0, 0.0, 1.0))),
    ],
)
def test_every_kind_of_parameter_changes_the_picture(
    field: str, values: tuple[object, ...]
) -> None:
    images = [render("star", dataclasses.replace(STYLE, **{field: v})).image for v in values]
    for i, left in enumerate(images):
        for right in images[i + 1 :]:
            assert np.abs(left.astype(int) - right.astype(int)).mean() > 0.5


def test_masks_say_where_colours_are() -> None:
    rendering = render("ball", STYLE, size=64)
    recoloured = dataclasses.replace(
        STYLE, background=(0.0, 1.0, 0.0), background_2=(0.0, 1.0, 0.0)
    )
    changed = np.abs(
        render("ball", recoloured, size=64).image.astype(int) - rendering.image.astype(int)
    ).sum(-1)
    covered = np.maximum(rendering.figure, rendering.outline) > 0.9999
    assert changed[covered].max() == 0
    assert changed[~covered].mean() > 10


def test_styles_are_reproducible_and_differ() -> None:
    assert sample_style(7, 1) == sample_style(7, 1)
    assert sample_style(7, 1) != sample_style(7, 2)
    assert len({sample_style(i, 1).background for i in range(50)}) == 50
