"""Style words go, content stays, and the head is what the caption is about."""

import pytest
from numpy.random import default_rng

from jobs.corpus.captions import caption as grid_caption
from jobs.corpus.captions import plain_caption
from jobs.corpus.contents import CONTENT_NAMES
from jobs.corpus.styles import sample_style
from jobs.mining.captions import read_caption


@pytest.mark.parametrize(
    ("caption", "prompt", "head"),
    [
        ("a fish, blue on dark grey, halftone", "a fish", "fish"),
        (
            "An oil painting of an old man sitting on a bench",
            "an old man sitting on a bench",
            "man",
        ),
        ("a dog, in the style of Van Gogh", "a dog", "dog"),
        ("two cats in anime style", "two cats", "cat"),
        ("a watercolor apple", "an apple", "apple"),
        ("a red car on a white background", "a red car", "car"),
        ("there is a house beside a tree", "a house beside a tree", "house"),
        ("pixel art of a group of birds", "a group of birds", "bird"),
        ("A photograph of a lighthouse at night", "a lighthouse at night", "lighthouse"),
        ("a watercolour of a cat", "a cat", "cat"),
        ("a dog in watercolor", "a dog", "dog"),
        ("a fox, impasto, thick brushstrokes", "a fox", "fox"),
        ("a dog, oil painting by Vincent van Gogh", "a dog", "dog"),
        ("a woman, by the sea", "a woman, by the sea", "woman"),
        ("a castle, concept art, trending on artstation, 4k", "a castle", "castle"),
        ("an old film photograph of a car", "a car", "car"),
        ("pen and ink sketch of a bridge", "a bridge", "bridge"),
        ("a man taking a photo of a dog", "a man taking a photo of a dog", "man"),
        ("a bowl of fruit, an open window", "a bowl of fruit, an open window", "bowl"),
        ("a house rendered in blender", "a house rendered in blender", "house"),
        ("ein Hund", "ein Hund", "hund"),
        ("", "", ""),
    ],
)
def test_reading(caption: str, prompt: str, head: str) -> None:
    content = read_caption(caption)
    assert (content.prompt, content.head) == (prompt, head)


def test_a_caption_of_style_alone_is_kept() -> None:
    assert read_caption("oil painting").prompt


def test_colours_of_things_are_content() -> None:
    assert read_caption("a green bottle").prompt == "a green bottle"
    assert read_caption("a bottle, green on black").prompt == "a bottle"


def test_extra_style_words_are_stripped() -> None:
    assert read_caption("a zorkian fox", ["Zorkian"]).prompt == "a fox"


@pytest.mark.parametrize("content", CONTENT_NAMES)
def test_grid_captions_lose_style_and_keep_content(content: str) -> None:
    rng = default_rng(0)
    for style_id in range(8):
        text = grid_caption(content, rng, sample_style(style_id, 1))
        read = read_caption(text)
        assert plain_caption(content) in read.prompt
        assert "," not in read.prompt
        assert read.head == content.split()[0]
