"""Small SVG charts for the report: histograms and curves with one marked value."""

from collections.abc import Sequence
from html import escape

import numpy as np
from numpy.typing import ArrayLike

_WIDTH, _HEIGHT = 520, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 12, 14, 34


def histogram(
    title: str,
    series: Sequence[tuple[str, str, ArrayLike]],
    marks: Sequence[tuple[str, float]] = (),
    num_bins: int = 40,
) -> str:
    """Overlaid histograms.

    Args:
        title: Read out by screen readers.
        series: (name, CSS class, values).
        marks: (label, value) of vertical lines; values that are not finite are left out.
        num_bins: Bins over the whole range.

    Returns:
        An ``<svg>`` element, or a note if there are no values.
    """
    values = [np.asarray(v, dtype=float) for _, _, v in series]
    pooled = np.concatenate(values) if values else np.zeros(0)
    if not len(pooled):
        return '<p class="note">No values.</p>'
    low, high = float(pooled.min()), float(pooled.max())
    edges = np.linspace(low, high if high > low else low + 1e-3, num_bins + 1)
    counts = [np.histogram(v, edges)[0] for v in values]
    peak = max(1, max(int(c.max()) for c in counts))
    bars = []
    for (_, css, _), heights in zip(series, counts, strict=True):
        for left, right, count in zip(edges[:-1], edges[1:], heights, strict=True):
            if count:
                x, width = _x(left, edges), max(_x(right, edges) - _x(left, edges) - 0.5, 0.5)
                y = _y(count / peak)
                bars.append(
                    f'<rect class="{css}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" '
                    f'height="{_HEIGHT - _BOTTOM - y:.1f}"/>'
                )
    names = [(name, css) for name, css, _ in series]
    return _frame(title, "".join(bars), edges, f"{peak:,}", names, marks)


def curves(
    title: str,
    x: Sequence[float],
    series: Sequence[tuple[str, str, Sequence[float]]],
    marks: Sequence[tuple[str, float]] = (),
) -> str:
    """Lines over ``x`` with values in [0, 1]; arguments as in ``histogram``."""
    if len(x) < 2:
        return '<p class="note">No values.</p>'
    edges = np.array([min(x), max(x)])
    lines = []
    for _, css, values in series:
        points = " ".join(f"{_x(a, edges):.1f},{_y(b):.1f}" for a, b in zip(x, values, strict=True))
        lines.append(f'<polyline class="{css}" points="{points}"/>')
    names = [(name, css) for name, css, _ in series]
    return _frame(title, "".join(lines), edges, "1", names, marks)


def _x(value: float, edges: np.ndarray) -> float:
    span = float(edges[-1] - edges[0]) or 1.0
    return _LEFT + (float(value) - float(edges[0])) / span * (_WIDTH - _LEFT - _RIGHT)


def _y(share: float) -> float:
    return _TOP + (1 - float(share)) * (_HEIGHT - _TOP - _BOTTOM)


def _frame(
    title: str,
    body: str,
    edges: np.ndarray,
    top_label: str,
    names: Sequence[tuple[str, str]],
    marks: Sequence[tuple[str, float]],
) -> str:
    base = _HEIGHT - _BOTTOM
    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}">',
        body,
        f'<line class="axis" x1="{_LEFT}" y1="{base}" x2="{_WIDTH - _RIGHT}" y2="{base}"/>',
        f'<text x="{_LEFT - 6}" y="{_TOP + 8}" text-anchor="end">{top_label}</text>',
        f'<text x="{_LEFT - 6}" y="{base}" text-anchor="end">0</text>',
    ]
    for value in np.linspace(float(edges[0]), float(edges[-1]), 5):
        x = _x(float(value), edges)
        parts.append(f'<text x="{x:.1f}" y="{base + 14}" text-anchor="middle">{value:.2f}</text>')
    for label, value in marks:
        if np.isfinite(value):
            x = min(max(_x(value, edges), _LEFT), _WIDTH - _RIGHT)
            near_right = x > _WIDTH * 0.75
            anchor, offset = ("end", -4) if near_right else ("start", 4)
            parts.append(
                f'<line class="mark" x1="{x:.1f}" y1="{_TOP}" x2="{x:.1f}" y2="{base}"/>'
                f'<text class="mark" x="{x + offset:.1f}" y="{_TOP + 8}" '
                f'text-anchor="{anchor}">{escape(label)}</text>'
            )
    x = float(_LEFT)
    for name, css in names:
        parts.append(
            f'<rect class="{css} key" x="{x:.1f}" y="{_HEIGHT - 11}" width="9" height="9"/>'
            f'<text x="{x + 13:.1f}" y="{_HEIGHT - 3}">{escape(name)}</text>'
        )
        x += 28 + 6.3 * len(name)
    return "".join([*parts, "</svg>"])
