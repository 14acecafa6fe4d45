"""Draws any content in any style: the truth that stylegrid's corpus and oracles share.

Shapes: H = W = size; work is done on a grid ``SUPERSAMPLING`` times as fine and averaged down.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jobs.corpus.contents import CONTENTS
from jobs.corpus.sdf import Field
from jobs.corpus.styles import RGB, Style

SUPERSAMPLING = 2
EDGE_BAND = 0.05  # canvas units: what counts as outline area where a style draws none
JITTER_SHIFT = 0.06
CANONICAL_SCALE = 1.28
JITTER_SCALE = (1.16, 1.36)


@dataclass(frozen=True, slots=True)
class Rendering:
    """An image (H, W, 3) uint8 with the coverage masks (H, W) in [0, 1] of figure and outline."""

    image: NDArray[np.uint8]
    figure: Field
    outline: Field


def _smooth_noise(shape: int, frequency: float, rng: np.random.Generator) -> Field:
    """Bilinear value noise of about unit range, (shape, shape)."""
    cells = max(2, round(frequency) + 1)
    grid = rng.uniform(-1, 1, (cells, cells)).astype(np.float32)
    position = np.linspace(0, cells - 1, shape, dtype=np.float32)
    low = np.minimum(position.astype(int), cells - 2)
    weight = position - low
    interpolate = np.zeros((shape, cells), dtype=np.float32)
    rows = np.arange(shape)
    interpolate[rows, low] = 1 - weight
    interpolate[rows, low + 1] = weight
    noise: Field = interpolate @ grid @ interpolate.T
    return noise


def _wave(x: Field, y: Field, frequency: float, angle: float) -> Field:
    phase = np.float32(np.pi * frequency) * (x * np.cos(angle) + y * np.sin(angle))
    wave: Field = np.sin(phase)
    return wave


def _cover(distance: Field, edge: float) -> Field:
    """Coverage of the inside, going from 1 to 0 over +-edge."""
    cover: Field = np.clip(0.5 - distance / np.float32(2 * edge), 0, 1)
    return cover


def _mix(base: NDArray[np.float32], colour: NDArray[np.float32] | RGB, alpha: Field) -> None:
    base += alpha[..., None] * (np.asarray(colour, dtype=np.float32) - base)


def _background(x: Field, y: Field, style: Style) -> NDArray[np.float32]:
    frequency, angle = style.background_frequency, style.background_angle
    amount: Field
    match style.background_kind:
        case "flat":
            amount = np.zeros_like(x)
        case "linear":
            amount = 0.5 + 0.5 * (x * np.cos(angle) + y * np.sin(angle))
        case "radial":
            amount = np.hypot(x, y) / np.float32(1.3)
        case "stripes":
            amount = np.clip(0.5 + 4 * _wave(x, y, frequency, angle), 0, 1)
        case "checker":
            waves = _wave(x, y, frequency, 0) * _wave(x, y, frequency, np.pi / 2)
            amount = np.clip(0.5 + 8 * waves, 0, 1)
        case "dots":
            waves = _wave(x, y, frequency, angle) * _wave(x, y, frequency, angle + np.pi / 2)
            amount = np.clip(6 * (np.abs(waves) - 0.45), 0, 1)
    canvas = np.empty((*x.shape, 3), dtype=np.float32)
    canvas[:] = style.background
    _mix(canvas, style.background_2, np.clip(amount, 0, 1).astype(np.float32))
    return canvas


def _texture(x: Field, y: Field, style: Style, rng: np.random.Generator) -> Field:
    """Darkening of a fill in [0, 1]."""
    frequency, angle = style.texture_frequency, style.texture_angle
    match style.texture_kind:
        case "flat":
            return np.zeros_like(x)
        case "hatch":
            lines = np.clip(0.2 + 2 * _wave(x, y, frequency, angle), 0, 1)
        case "crosshatch":
            lines = np.maximum(
                np.clip(2 * _wave(x, y, frequency, angle), 0, 1),
                np.clip(2 * _wave(x, y, frequency, angle + np.pi / 2), 0, 1),
            )
        case "dots":
            waves = _wave(x, y, frequency, angle) * _wave(x, y, frequency, angle + np.pi / 2)
            lines = np.clip(6 * (np.abs(waves) - 0.35), 0, 1)
        case "mottle":
            lines = np.clip(0.5 + _smooth_noise(len(x), 1.6 * frequency, rng), 0, 1)
    darkening: Field = lines * np.float32(style.texture_strength * 0.55)
    return darkening


def _shade(x: Field, y: Field, distance: Field, style: Style) -> Field:
    """Signed lightness change of a fill in [-1, 1]."""
    match style.shading_kind:
        case "none":
            return np.zeros_like(x)
        case "linear":
            light = 1.3 * (x * np.cos(style.shading_angle) + y * np.sin(style.shading_angle))
        case "radial":
            light = 0.7 - 1.7 * np.hypot(x + 0.15, y + 0.15)
        case "rim":
            light = 1 - 2 * np.clip(-distance / np.float32(0.22), 0, 1)
            light = -light
    change: Field = np.clip(light, -1, 1) * np.float32(style.shading_strength)
    return change


def _fill(
    x: Field, y: Field, distance: Field, colour: RGB, style: Style, texture: Field
) -> NDArray[np.float32]:
    paint = np.empty((*x.shape, 3), dtype=np.float32)
    paint[:] = colour
    shade = _shade(x, y, distance, style)[..., None]
    paint += np.where(shade > 0, shade * (1 - paint), shade * paint) * np.float32(0.8)
    return paint * (1 - texture[..., None])


def _brush(canvas: NDArray[np.float32], style: Style, rng: np.random.Generator) -> None:
    """Smears along one direction and adds bristle streaks, in place."""
    length = style.medium_strength * 0.1 * len(canvas) / 2
    dx, dy = np.cos(style.medium_angle), np.sin(style.medium_angle)
    shifts = [
        np.roll(canvas, (round(dy * t), round(dx * t)), axis=(0, 1))
        for t in np.linspace(-length, length, 7)
    ]
    streaks = sum(
        np.roll(s, (round(dy * t), round(dx * t)), axis=(0, 1))
        for s in [rng.uniform(-1, 1, canvas.shape[:2]).astype(np.float32)]
        for t in np.linspace(-2 * length, 2 * length, 13)
    )
    canvas[:] = np.mean(shifts, axis=0)
    canvas += np.float32(0.05 * style.medium_strength) * np.asarray(streaks)[..., None]


def _halftone(canvas: NDArray[np.float32], x: Field, y: Field, style: Style) -> None:
    """Screens the picture with dots whose size follows darkness, in place."""
    frequency, angle = style.medium_frequency, style.medium_angle
    screen = _wave(x, y, frequency, angle) * _wave(x, y, frequency, angle + np.pi / 2)
    luma = canvas @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    ink = np.clip(4 * (screen - (2 * luma - 1)), 0, 1) * np.float32(0.45 * style.medium_strength)
    canvas *= 1 - ink[..., None]
    canvas += (np.float32(0.25 * style.medium_strength) * (1 - canvas)) * (luma > 0.4)[..., None]


def _pixelate(canvas: NDArray[np.float32], style: Style) -> None:
    """Averages over square blocks, in place; the last block may be cut."""
    side = len(canvas)
    block = max(2, round(side * (0.04 + 0.03 * style.medium_strength) / 1.6))
    edges = np.arange(0, side, block)
    sums = np.add.reduceat(np.add.reduceat(canvas, edges, axis=0), edges, axis=1)
    counts = np.diff(np.append(edges, side)).astype(np.float32)
    means = sums / (counts[:, None] * counts[None, :])[..., None]
    repeats = counts.astype(int)
    canvas[:] = np.repeat(np.repeat(means, repeats, axis=0), repeats, axis=1)


def _downsample(field: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    blocks = field.reshape(size, SUPERSAMPLING, size, SUPERSAMPLING, *field.shape[2:])
    means: NDArray[np.float32] = blocks.mean(axis=(1, 3))
    return means


def _paint(
    canvas: NDArray[np.float32], x: Field, y: Field, content: str, style: Style, texture: Field
) -> tuple[Field, Field]:
    """Paints the parts in order; returns coverage of figure and outline."""
    edge = max(style.softness, 2.0 / len(x))
    figure, outline = np.zeros_like(x), np.zeros_like(x)
    for part in CONTENTS[content].parts:
        distance = part.distance(x, y).astype(np.float32)
        cover = _cover(distance, edge)
        _mix(canvas, _fill(x, y, distance, getattr(style, part.role), style, texture), cover)
        width = style.outline_width
        band = _cover(np.abs(distance) - (width or EDGE_BAND) / 2, edge)
        if width > 0:
            _mix(canvas, style.outline, band)
        outline = np.maximum(outline * (1 - cover), band)
        figure = np.maximum(figure, cover)
    return figure, outline


def render(content: str, style: Style, *, size: int = 64, variant: int = 0) -> Rendering:
    """Draws ``content`` in ``style`` at ``size`` pixels.

    Variant 0 is the canonical placement (the oracle of a generated image); any other variant
    moves and scales the figure a little and draws its own noise. Same arguments, same bytes.
    """
    side = size * SUPERSAMPLING
    rng = np.random.default_rng([variant, style.style_id, len(content), 0x9E1D])
    axis = (np.arange(side, dtype=np.float32) + np.float32(0.5)) * np.float32(2 / side) - 1
    x, y = np.meshgrid(axis, axis)
    canvas = _background(x, y, style)
    shift, scale = np.zeros(2), CANONICAL_SCALE
    if variant:
        shift, scale = rng.uniform(-JITTER_SHIFT, JITTER_SHIFT, 2), rng.uniform(*JITTER_SCALE)
    amplitude = np.float32(style.edge_amplitude)
    warp_x = amplitude * _smooth_noise(side, style.edge_frequency, rng)
    warp_y = amplitude * _smooth_noise(side, style.edge_frequency, rng)
    figure_x = ((x + warp_x - shift[0]) / scale).astype(np.float32)
    figure_y = ((y + warp_y - shift[1]) / scale).astype(np.float32)
    texture = _texture(x, y, style, rng)
    figure, outline = _paint(canvas, figure_x, figure_y, content, style, texture)
    match style.medium_kind:
        case "brush":
            _brush(canvas, style, rng)
        case "halftone":
            _halftone(canvas, x, y, style)
        case "pixel":
            _pixelate(canvas, style)
        case "clean":
            pass
    if style.grain_strength > 0:
        grain = _smooth_noise(side, 2 * style.grain_frequency, rng)
        canvas += np.float32(style.grain_strength) * grain[..., None]
    pixels = np.clip(_downsample(canvas, size), 0, 1) * 255
    return Rendering(
        image=(pixels + 0.5).astype(np.uint8),
        figure=_downsample(figure, size),
        outline=_downsample(outline, size),
    )
