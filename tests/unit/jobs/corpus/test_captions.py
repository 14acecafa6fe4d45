import numpy as np
import pytest

from jobs.corpus.captions import caption, colour_word, plain_caption
from jobs.corpus.contents import CONTENT_NAMES
from jobs.corpus.styles import sample_style


@pytest.mark.parametrize("content", CONTENT_NAMES)
def test_every_wording_speaks_of_its_content(content: str) -> None:
    rng = np.random.default_rng(0)
    texts = {caption(content, rng, sample_style(i, 1) if i % 2 else None) for i in range(40)}
    assert len(texts) > 10
    assert all(plain_caption(content) in text for text in texts)


def test_style_words_come_only_with_a_style() -> None:
    rng = np.random.default_rng(0)
    plain = {caption("star", rng) for _ in range(50)}
    assert not any("," in text for text in plain)
    assert all("," in caption("star", rng, sample_style(i, 1)) for i in range(20))


def test_colour_words() -> None:
    assert colour_word((1, 0, 0)) == "red"
    assert colour_word((0.1, 0.1, 0.3)) == "dark blue"
    assert colour_word((0.02, 0.02, 0.02)) == "black"
    assert colour_word((0.95, 0.95, 0.95)) == "white"
