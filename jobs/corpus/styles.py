"""Styles of stylegrid: continuous parameters of nine kinds, drawn from a seed.

Kinds: palette, background, outline, fill texture, shading, edge roughness, medium
(brush, halftone, pixelation), canvas grain, softness. Lengths are in canvas units
(the canvas is 2 wide), frequencies in cycles per canvas, angles in radians.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

RGB = tuple[float, float, float]
BackgroundKind = Literal["flat", "linear", "radial", "stripes", "checker", "dots"]
TextureKind = Literal["flat", "hatch", "crosshatch", "dots", "mottle"]
ShadingKind = Literal["none", "linear", "radial", "rim"]
MediumKind = Literal["clean", "brush", "halftone", "pixel"]

BACKGROUNDS: tuple[BackgroundKind, ...] = (
    "flat", "linear", "radial", "stripes", "checker", "dots",
)  # fmt: skip
TEXTURES: tuple[TextureKind, ...] = ("flat", "hatch", "crosshatch", "dots", "mottle")
SHADINGS: tuple[ShadingKind, ...] = ("none", "linear", "radial", "rim")
MEDIA: tuple[MediumKind, ...] = ("clean", "brush", "halftone", "pixel")


@dataclass(frozen=True, slots=True)
class Style:
    """One appearance; equal parameters and seed draw equal bytes."""

    style_id: int
    background: RGB
    background_2: RGB
    background_kind: BackgroundKind
    background_frequency: float
    background_angle: float
    primary: RGB
    secondary: RGB
    accent: RGB
    outline: RGB
    outline_width: float
    texture_kind: TextureKind
    texture_strength: float
    texture_frequency: float
    texture_angle: float
    shading_kind: ShadingKind
    shading_strength: float
    shading_angle: float
    edge_amplitude: float
    edge_frequency: float
    medium_kind: MediumKind
    medium_strength: float
    medium_frequency: float
    medium_angle: float
    grain_strength: float
    grain_frequency: float
    softness: float


def oklch(lightness: float, chroma: float, hue: float) -> RGB:
    """OKLCH to sRGB in [0, 1], out-of-gamut values clipped (Ottosson 2020, hue in radians)."""
    a, b = chroma * np.cos(hue), chroma * np.sin(hue)
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    linear = np.array(
        [
            4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short,
            -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short,
            -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short,
        ]
    )
    linear = np.clip(linear, 0, 1)
    srgb = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    red, green, blue = (round(float(v), 5) for v in srgb)
    return red, green, blue


def sample_palette(rng: np.random.Generator) -> dict[str, RGB]:
    """Six colours; figure and background always differ by at least 0.25 in OK lightness."""
    base = rng.uniform(0, 2 * np.pi)
    spread = rng.choice([0.35, 0.9, 2.1, np.pi])
    background_l = float(rng.choice([rng.uniform(0.12, 0.4), rng.uniform(0.7, 0.97)]))
    figure_l = rng.uniform(0.6, 0.85) if background_l < 0.5 else rng.uniform(0.3, 0.55)
    background_c, figure_c = rng.uniform(0.0, 0.12), rng.uniform(0.03, 0.2)
    dark = background_l >= 0.5 or rng.random() < 0.5
    return {
        "background": oklch(background_l, background_c, base),
        "background_2": oklch(
            float(np.clip(background_l + rng.choice([-1, 1]) * rng.uniform(0.07, 0.16), 0.05, 1)),
            background_c,
            base + rng.uniform(-0.5, 0.5),
        ),
        "primary": oklch(figure_l, figure_c, base + spread),
        "secondary": oklch(
            float(np.clip(figure_l + rng.uniform(-0.12, 0.12), 0.1, 0.95)),
            rng.uniform(0.03, 0.2),
            base - spread + rng.uniform(-0.4, 0.4),
        ),
        "accent": oklch(rng.uniform(0.45, 0.9), rng.uniform(0.05, 0.2), rng.uniform(0, 2 * np.pi)),
        "outline": oklch(rng.uniform(0.05, 0.25), rng.uniform(0, 0.06), base)
        if dark
        else oklch(rng.uniform(0.9, 1.0), rng.uniform(0, 0.04), base),
    }


def sample_style(style_id: int, seed: int) -> Style:
    """The style of number ``style_id`` in the style space of ``seed``; the same every time."""
    rng = np.random.default_rng([seed, style_id, 0x5717E])
    half_turn = float(np.pi)
    return Style(
        style_id=style_id,
        **sample_palette(rng),
        background_kind=BACKGROUNDS[rng.choice(6, p=[0.35, 0.15, 0.15, 0.15, 0.1, 0.1])],
        background_frequency=float(rng.uniform(3, 8)),
        background_angle=float(rng.uniform(0, half_turn)),
        outline_width=float(rng.choice([0.0, rng.uniform(0.03, 0.1)], p=[0.3, 0.7])),
        texture_kind=TEXTURES[rng.choice(5, p=[0.32, 0.2, 0.14, 0.17, 0.17])],
        texture_strength=float(rng.uniform(0.35, 0.9)),
        texture_frequency=float(rng.uniform(6, 13)),
        texture_angle=float(rng.uniform(0, half_turn)),
        shading_kind=SHADINGS[rng.choice(4, p=[0.4, 0.25, 0.2, 0.15])],
        shading_strength=float(rng.uniform(0.25, 0.6)),
        shading_angle=float(rng.uniform(0, 2 * half_turn)),
        edge_amplitude=float(rng.choice([0.0, rng.uniform(0.015, 0.05)], p=[0.5, 0.5])),
        edge_frequency=float(rng.uniform(4, 12)),
        medium_kind=MEDIA[rng.choice(4, p=[0.46, 0.2, 0.16, 0.18])],
        medium_strength=float(rng.uniform(0.4, 1.0)),
        medium_frequency=float(rng.uniform(10, 18)),
        medium_angle=float(rng.uniform(0, half_turn)),
        grain_strength=float(rng.choice([0.0, rng.uniform(0.04, 0.16)], p=[0.5, 0.5])),
        grain_frequency=float(rng.uniform(14, 30)),
        softness=float(rng.choice([0.0, rng.uniform(0.02, 0.05)], p=[0.7, 0.3])),
    )
