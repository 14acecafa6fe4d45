"""Small SVG charts for the report: histograms and curves with a marked value.

Colours come from the page's style sheet, by class, so that charts follow its dark mode.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from jobs.mining.histogram import Histogram

_WIDTH, _HEIGHT = 520, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 50, 14, 16, 46
_BASE = _HEIGHT - _BOTTOM
NO_VALUES = '<p class="note">No values.</p>'


@dataclass(frozen=True, slots=True)
class Mark:
    """A vertical line at a value of x, or a dot where ``y`` is given."""

    label: str
    x: float
    y: float | None = None


@dataclass(frozen=True, slots=True)
class Line:
    """One curve: its name, the CSS class of its colour, and its values of y."""

    name: str
    css: str
    values: Sequence[float]


@dataclass(frozen=True, slots=True)
class _Axes:
    """The range of x and of y, and how values of each are written."""

    x_low: float
    x_high: float
    y_low: float
    y_high: float
    x_label: str
    x_text: Callable[[float], str]
    y_text: Callable[[float], str]

    def x(self, value: float) -> float:
        span = (self.x_high - self.x_low) or 1.0
        return _LEFT + (value - self.x_low) / span * (_WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        span = (self.y_high - self.y_low) or 1.0
        return _TOP + (1 - (value - self.y_low) / span) * (_BASE - _TOP)


def bars(title: str, data: Histogram, classes: Sequence[str], marks: Sequence[Mark] = ()) -> str:
    """A histogram, its series stacked in their order.

    Args:
        title: Read out by screen readers, and the label of x.
        data: The histogram.
        classes: CSS class of each series.
        marks: Values to point out; those outside of the range lie on its border.

    Returns:
        An ``<svg>`` element, or a note if there are no values.
    """
    if not data.total:
        return NO_VALUES
    stacks = np.cumsum([np.array(c) for c in data.counts.values()], axis=0)
    axes = _Axes(data.low, data.high, 0, int(stacks.max()), title, _plain(data), _thousands)
    edges = np.linspace(data.low, data.high, data.num_bins + 1)
    body = []
    below = np.zeros(data.num_bins, dtype=np.int64)
    for css, top in zip(classes, stacks, strict=True):
        for n in np.flatnonzero(top > below):
            x, right = axes.x(float(edges[n])), axes.x(float(edges[n + 1]))
            y, base = axes.y(float(top[n])), axes.y(float(below[n]))
            body.append(
                f'<rect class="{css}" x="{x:.1f}" y="{y:.1f}" '
                f'width="{max(right - x - 0.7, 0.7):.1f}" height="{max(base - y, 0.8):.1f}"/>'
            )
        below = top
    names = list(zip(data.counts, classes, strict=True))
    return _frame(title, axes, "".join(body), marks, names if len(names) > 1 else [])


def curves(
    title: str, x: Sequence[float], lines: Sequence[Line], marks: Sequence[Mark] = ()
) -> str:
    """Shares (0 to 1) over ``x``; arguments as in ``bars``."""
    if len(x) < 2:
        return NO_VALUES
    axes = _Axes(min(x), max(x), 0, 1, title, lambda v: f"{v:.2f}", _percent)
    return _frame(title, axes, _polylines(axes, x, lines), marks, [(n.name, n.css) for n in lines])


def tradeoff(
    title: str, x: Sequence[float], y: Sequence[float], css: str, marks: Sequence[Mark] = ()
) -> str:
    """One share over another, each from the least that occurs to 1."""
    if len(x) < 2:
        return NO_VALUES
    axes = _Axes(_floor(x), 1, _floor(y), 1, title, _percent, _percent)
    order = np.argsort(x, kind="stable")
    line = Line("", css, [y[n] for n in order])
    return _frame(title, axes, _polylines(axes, [x[n] for n in order], [line]), marks, [])


def _polylines(axes: _Axes, x: Sequence[float], lines: Sequence[Line]) -> str:
    parts = []
    for line in lines:
        points = (f"{axes.x(a):.1f},{axes.y(b):.1f}" for a, b in zip(x, line.values, strict=True))
        parts.append(f'<polyline class="{line.css}" points="{" ".join(points)}"/>')
    return "".join(parts)


def _frame(
    title: str,
    axes: _Axes,
    body: str,
    marks: Sequence[Mark],
    names: Sequence[tuple[str, str]],
) -> str:
    right = _WIDTH - _RIGHT
    parts = [f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}">']
    for value in np.linspace(axes.y_low, axes.y_high, 3):
        y = axes.y(float(value))
        css = "axis" if value == axes.y_low else "grid"
        parts.append(
            f'<line class="{css}" x1="{_LEFT}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}"/>'
            f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">'
            f"{axes.y_text(float(value))}</text>"
        )
    for value in np.linspace(axes.x_low, axes.x_high, 5):
        x = axes.x(float(value))
        anchor = "end" if value == axes.x_high else "middle"
        parts.append(
            f'<text x="{x:.1f}" y="{_BASE + 15}" text-anchor="{anchor}">'
            f"{axes.x_text(float(value))}</text>"
        )
    parts += [body, *(_mark(axes, mark) for mark in marks if np.isfinite(mark.x)), _legend(names)]
    parts.append(
        f'<text x="{right}" y="{_HEIGHT - 5}" text-anchor="end">{escape(axes.x_label)}</text></svg>'
    )
    return "".join(parts)


def _mark(axes: _Axes, mark: Mark) -> str:
    x = min(max(axes.x(mark.x), _LEFT), _WIDTH - _RIGHT)
    anchor, offset = ("end", -6) if x > _WIDTH * 0.6 else ("start", 6)
    if mark.y is not None:
        y = axes.y(mark.y)
        return (
            f'<circle class="mark" cx="{x:.1f}" cy="{y:.1f}" r="5"/>'
            f'<text class="mark" x="{x + 1.4 * offset:.1f}" y="{y + 18:.1f}" '
            f'text-anchor="{anchor}">{escape(mark.label)}</text>'
        )
    return (
        f'<line class="mark" x1="{x:.1f}" y1="{_TOP - 6}" x2="{x:.1f}" y2="{_BASE}"/>'
        f'<text class="mark" x="{x + offset:.1f}" y="{_TOP + 2}" '
        f'text-anchor="{anchor}">{escape(mark.label)}</text>'
    )


def _legend(names: Sequence[tuple[str, str]]) -> str:
    parts, x = [], float(_LEFT)
    for name, css in names:
        parts.append(
            f'<rect class="{css}" x="{x:.1f}" y="{_HEIGHT - 14}" width="10" height="10" rx="2"/>'
            f'<text x="{x + 14:.1f}" y="{_HEIGHT - 5}">{escape(name)}</text>'
        )
        x += 30 + 6.2 * len(name)
    return "".join(parts)


def _plain(data: Histogram) -> Callable[[float], str]:
    whole = data.high - data.low >= 10
    return (lambda v: f"{v:,.0f}") if whole else (lambda v: f"{v:.2f}")


def _thousands(value: float) -> str:
    return f"{value:,.0f}" if value < 10_000 else f"{value / 1000:,.0f}k"


def _percent(value: float) -> str:
    return f"{100 * value:.0f} %"


def _floor(values: Sequence[float]) -> float:
    """The least value, rounded down to a tenth, and below 1."""
    return min(float(np.floor(min(values) * 10)) / 10, 0.9)
