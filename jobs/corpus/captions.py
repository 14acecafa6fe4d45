"""Captions of stylegrid: one content in several wordings, with or without words for the style."""

import numpy as np

from jobs.corpus.contents import CONTENTS
from jobs.corpus.styles import RGB, Style

TEMPLATES: tuple[str, ...] = (
    "{}",
    "a picture of {}",
    "an image of {}",
    "there is {}",
    "{} in the middle",
    "a view of {}",
)

_HUES: tuple[tuple[float, str], ...] = (
    (15, "red"), (45, "orange"), (70, "yellow"), (165, "green"), (200, "cyan"),
    (255, "blue"), (290, "purple"), (345, "pink"), (361, "red"),
)  # fmt: skip
_BACKGROUND_WORDS = {"linear": "gradient", "radial": "glow", "stripes": "striped",
                     "checker": "checkered", "dots": "dotted"}  # fmt: skip
_MEDIUM_WORDS = {"brush": "brushed", "halftone": "halftone", "pixel": "pixelated"}
_TEXTURE_WORDS = {"hatch": "hatched", "crosshatch": "crosshatched", "dots": "spotted",
                  "mottle": "mottled"}  # fmt: skip


def colour_word(colour: RGB) -> str:
    """The everyday name of an sRGB colour in [0, 1]."""
    high, low = max(colour), min(colour)
    if high - low < 0.1:
        return "black" if high < 0.25 else "white" if low > 0.8 else "grey"
    red, green, blue = colour
    if high == red:
        hue = 60 * (((green - blue) / (high - low)) % 6)
    elif high == green:
        hue = 60 * ((blue - red) / (high - low) + 2)
    else:
        hue = 60 * ((red - green) / (high - low) + 4)
    name = next(word for limit, word in _HUES if hue < limit)
    return f"dark {name}" if high < 0.35 else f"pale {name}" if low > 0.65 else name


def style_words(style: Style) -> list[str]:
    """Words that tell a style apart, most telling first."""
    words = [f"{colour_word(style.primary)} on {colour_word(style.background)}"]
    if style.medium_kind in _MEDIUM_WORDS:
        words.append(_MEDIUM_WORDS[style.medium_kind])
    if style.texture_kind in _TEXTURE_WORDS:
        words.append(_TEXTURE_WORDS[style.texture_kind])
    if style.background_kind in _BACKGROUND_WORDS:
        words.append(f"{_BACKGROUND_WORDS[style.background_kind]} background")
    words.append("outlined" if style.outline_width > 0 else "no outline")
    return words


def plain_caption(content: str) -> str:
    """The shortest caption: the noun phrase alone."""
    return CONTENTS[content].phrase


def caption(content: str, rng: np.random.Generator, style: Style | None = None) -> str:
    """A caption in one of several wordings; with ``style``, one to three style words are added."""
    text = TEMPLATES[rng.integers(len(TEMPLATES))].format(CONTENTS[content].phrase)
    if style is None:
        return text
    words = style_words(style)
    count = int(rng.integers(1, min(3, len(words)) + 1))
    chosen = sorted(rng.choice(len(words), size=count, replace=False))
    return ", ".join([text, *(words[i] for i in chosen)])
