"""The style descriptor follows style, the content descriptor follows content."""

import dataclasses

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from i2l_model.errors import InputError
from i2l_model.images import fit_square
from jobs.corpus.captions import plain_caption
from jobs.corpus.render import render
from jobs.corpus.styles import sample_palette, sample_style
from jobs.mining.config import EncoderConfig
from jobs.mining.encoders import REGISTRY, encoder_entry, load_encoder

CONTENTS = ("ball", "house", "fish", "star")
STYLES = range(6)

DESCRIPTORS = [name for name, entry in REGISTRY.items() if not entry.is_model]


@pytest.fixture(scope="module")
def grid() -> tuple[list[NDArray[np.uint8]], list[str], NDArray[np.int64], NDArray[np.int64]]:
    cells = [(s, c) for s in STYLES for c in range(len(CONTENTS))]
    images = [render(CONTENTS[c], sample_style(s, 1), variant=1 + s).image for s, c in cells]
    captions = [plain_caption(CONTENTS[c]) for _, c in cells]
    styles, contents = np.array(cells).T
    return images, captions, styles, contents


def nearest(vectors: NDArray[np.float32]) -> NDArray[np.int64]:
    similarity = vectors @ vectors.T
    np.fill_diagonal(similarity, -1)
    return similarity.argmax(axis=1)


@pytest.mark.parametrize("name", DESCRIPTORS)
def test_vectors_are_unit_float32_and_batching_changes_nothing(name, grid) -> None:
    images, captions, *_ = grid
    encoder = load_encoder(name)
    together = encoder(images, captions)
    assert together.dtype == np.float32
    assert np.allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    alone = np.concatenate([encoder([i], [c]) for i, c in zip(images, captions, strict=True)])
    assert np.abs(together - alone).max() < 1e-4


def test_style_neighbours_share_the_style(grid) -> None:
    images, captions, styles, contents = grid
    found = nearest(load_encoder("offline-style")(images, captions))
    assert (styles[found] == styles).mean() > 0.95
    assert (contents[found] != contents).all()


def test_content_neighbours_share_the_content_with_and_without_captions(grid) -> None:
    images, captions, _, contents = grid
    encoder = load_encoder("offline-content")
    assert (contents[nearest(encoder(images, captions))] == contents).all()
    assert (contents[nearest(encoder(images, [""] * len(images)))] == contents).mean() > 0.6


@pytest.mark.parametrize("name", DESCRIPTORS)
def test_odd_images_give_finite_vectors(name) -> None:
    shapes = [(64, 64), (300, 200), (33, 90)]
    images = [np.full((*shape, 3), value, np.uint8) for shape in shapes for value in (0, 128, 255)]
    vectors = load_encoder(name)(images, [""] * len(images))
    assert np.isfinite(vectors).all()


def test_pictures_of_ample_size_keep_their_style_when_scaled() -> None:
    """Below the encoder's input size pixels count as they are: there, a pixel grid is a style."""
    large = [render("fish", sample_style(style, 1), size=512).image for style in STYLES]
    small = [np.asarray(fit_square(Image.fromarray(image), 256)) for image in large]
    encoder = load_encoder("offline-style")
    captions = [""] * len(large)
    cosine = (encoder(large, captions) * encoder(small, captions)).sum(axis=1)
    assert cosine.min() > 0.9


def test_the_style_vector_does_not_tell_colours() -> None:
    palettes = np.random.default_rng(0)
    drawn = [sample_style(style, 1) for style in STYLES]
    other = [dataclasses.replace(style, **sample_palette(palettes)) for style in drawn]
    images = [render("fish", style, size=128).image for style in (*drawn, *other)]
    vectors = load_encoder("offline-style")(images, [""] * len(images))
    similarity = vectors[: len(drawn)] @ vectors[len(drawn) :].T
    assert (similarity.argmax(axis=1) == np.arange(len(drawn))).mean() > 0.8


def test_unknown_encoders_are_input_errors() -> None:
    with pytest.raises(InputError, match="offline-style"):
        encoder_entry(EncoderConfig(name="nope"), "style")
    with pytest.raises(InputError, match="no known style encoder"):
        encoder_entry(EncoderConfig(name="offline-content"), "style")
