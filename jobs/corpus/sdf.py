"""Signed distance functions on a canvas of [-1, 1] x [-1, 1], y pointing down.

Every function takes coordinate arrays of one shape and returns distances of that shape:
negative inside, positive outside, in canvas units.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.floating[Any]]


def circle(x: Field, y: Field, cx: float, cy: float, radius: float) -> Field:
    """Disc of ``radius`` around (cx, cy)."""
    distance: Field = np.hypot(x - cx, y - cy) - np.float32(radius)
    return distance


def ellipse(x: Field, y: Field, cx: float, cy: float, rx: float, ry: float) -> Field:
    """Ellipse with half axes (rx, ry); the distance is first-order exact near the border."""
    u, v = (x - cx) / rx, (y - cy) / ry
    norm = np.hypot(u, v)
    slope = np.hypot(u / rx, v / ry) + np.float32(1e-6)
    distance: Field = norm * (norm - 1) / slope
    return distance


def box(x: Field, y: Field, cx: float, cy: float, half_w: float, half_h: float) -> Field:
    """Axis-aligned rectangle."""
    dx, dy = np.abs(x - cx) - half_w, np.abs(y - cy) - half_h
    outside = np.hypot(np.maximum(dx, 0), np.maximum(dy, 0))
    distance: Field = outside + np.minimum(np.maximum(dx, dy), 0)
    return distance


def capsule(
    x: Field, y: Field, start: tuple[float, float], end: tuple[float, float], radius: float
) -> Field:
    """Segment from ``start`` to ``end``, thickened by ``radius``."""
    (x0, y0), (x1, y1) = start, end
    dx, dy = x1 - x0, y1 - y0
    along = ((x - x0) * dx + (y - y0) * dy) / (dx * dx + dy * dy)
    along = np.clip(along, 0, 1)
    distance: Field = np.hypot(x - x0 - along * dx, y - y0 - along * dy) - np.float32(radius)
    return distance


def polygon(x: Field, y: Field, points: Sequence[tuple[float, float]]) -> Field:
    """Simple polygon; exact distance, sign by the even-odd rule."""
    squared = np.full_like(x, np.inf)
    inside = np.zeros(x.shape, dtype=bool)
    for (x0, y0), (x1, y1) in zip(points, [*points[1:], points[0]], strict=True):
        dx, dy = x1 - x0, y1 - y0
        px, py = x - x0, y - y0
        along = np.clip((px * dx + py * dy) / (dx * dx + dy * dy), 0, 1)
        squared = np.minimum(squared, (px - along * dx) ** 2 + (py - along * dy) ** 2)
        if y0 != y1:
            crosses = (y0 > y) != (y1 > y)
            inside ^= crosses & (px < dx * py / dy)
    distance: Field = np.where(inside, -1, 1).astype(np.float32) * np.sqrt(squared)
    return distance


def star_points(
    num_tips: int, outer: float, inner: float, cx: float = 0.0, cy: float = 0.0
) -> list[tuple[float, float]]:
    """Corner points of a star whose first tip points up."""
    angles = np.arange(2 * num_tips) * np.pi / num_tips - np.pi / 2
    radii = np.where(np.arange(2 * num_tips) % 2 == 0, outer, inner)
    return [
        (float(cx + r * np.cos(a)), float(cy + r * np.sin(a)))
        for r, a in zip(radii, angles, strict=True)
    ]


def union(*fields: Field) -> Field:
    """Set union."""
    merged: Field = np.minimum.reduce(fields)
    return merged


def subtract(field: Field, removed: Field) -> Field:
    """``field`` without ``removed``."""
    return np.maximum(field, -removed)


def intersect(*fields: Field) -> Field:
    """Set intersection."""
    common: Field = np.maximum.reduce(fields)
    return common
