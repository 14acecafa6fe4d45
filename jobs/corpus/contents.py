"""What stylegrid draws: objects and small two-object scenes, as painted parts.

A part has a colour role and a signed distance function; a style decides what colour, texture
and outline a role gets. Coordinates are those of ``sdf``; an object fills about [-0.62, 0.62].
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from jobs.corpus import sdf
from jobs.corpus.sdf import Field

Role = Literal["primary", "secondary", "accent"]


@dataclass(frozen=True, slots=True)
class Part:
    """One painted area of a content."""

    role: Role
    distance: Callable[[Field, Field], Field]


@dataclass(frozen=True, slots=True)
class Content:
    """A thing to draw, with the noun phrase that captions use."""

    name: str
    phrase: str
    parts: tuple[Part, ...]


def _placed(part: Part, cx: float, cy: float, scale: float) -> Part:
    def distance(x: Field, y: Field) -> Field:
        return part.distance((x - cx) / scale, (y - cy) / scale) * np.float32(scale)

    return Part(part.role, distance)


def _object(name: str, *parts: tuple[Role, Callable[[Field, Field], Field]]) -> Content:
    article = "an" if name[0] in "aeiou" else "a"
    return Content(name, f"{article} {name}", tuple(Part(role, f) for role, f in parts))


def _heart(x: Field, y: Field) -> Field:
    lobes = sdf.union(
        sdf.circle(x, y, -0.28, -0.2, 0.33),
        sdf.circle(x, y, 0.28, -0.2, 0.33),
    )
    tip = sdf.polygon(x, y, [(-0.56, -0.03), (0.0, -0.4), (0.56, -0.03), (0.0, 0.6)])
    return sdf.union(lobes, tip)


def _crown(x: Field, y: Field) -> Field:
    return sdf.union(
        sdf.circle(x, y, -0.25, -0.1, 0.3),
        sdf.circle(x, y, 0.25, -0.1, 0.3),
        sdf.circle(x, y, 0.0, -0.33, 0.3),
    )


def _petals(x: Field, y: Field) -> Field:
    angles = np.arange(6) * np.pi / 3
    return sdf.union(
        *(sdf.circle(x, y, 0.27 * np.cos(a), 0.27 * np.sin(a) - 0.18, 0.18) for a in angles)
    )


def _cloud(x: Field, y: Field) -> Field:
    return sdf.union(
        sdf.circle(x, y, -0.32, 0.08, 0.24),
        sdf.circle(x, y, 0.32, 0.08, 0.24),
        sdf.circle(x, y, 0.0, -0.1, 0.34),
        sdf.box(x, y, 0.0, 0.17, 0.34, 0.15),
    )


_OBJECTS = (
    _object(
        "ball",
        ("primary", lambda x, y: sdf.circle(x, y, 0, 0, 0.58)),
        (
            "secondary",
            lambda x, y: sdf.intersect(
                sdf.circle(x, y, 0, 0, 0.58), sdf.box(x, y, 0, 0, 0.7, 0.16)
            ),
        ),
    ),
    _object("star", ("primary", lambda x, y: sdf.polygon(x, y, sdf.star_points(5, 0.66, 0.27)))),
    _object("heart", ("primary", _heart)),
    _object(
        "house",
        ("primary", lambda x, y: sdf.box(x, y, 0, 0.24, 0.42, 0.34)),
        ("secondary", lambda x, y: sdf.polygon(x, y, [(-0.6, -0.08), (0, -0.64), (0.6, -0.08)])),
        ("accent", lambda x, y: sdf.box(x, y, 0, 0.37, 0.12, 0.21)),
    ),
    _object(
        "tree",
        ("secondary", lambda x, y: sdf.box(x, y, 0, 0.38, 0.1, 0.25)),
        ("primary", _crown),
    ),
    _object(
        "pine",
        ("secondary", lambda x, y: sdf.box(x, y, 0, 0.5, 0.09, 0.14)),
        ("primary", lambda x, y: sdf.polygon(x, y, [(-0.46, 0.4), (0, -0.2), (0.46, 0.4)])),
        ("primary", lambda x, y: sdf.polygon(x, y, [(-0.34, 0.0), (0, -0.64), (0.34, 0.0)])),
    ),
    _object(
        "moon",
        (
            "primary",
            lambda x, y: sdf.subtract(
                sdf.circle(x, y, -0.04, 0, 0.6), sdf.circle(x, y, 0.27, -0.1, 0.47)
            ),
        ),
    ),
    _object(
        "sun",
        ("secondary", lambda x, y: sdf.polygon(x, y, sdf.star_points(10, 0.66, 0.42))),
        ("primary", lambda x, y: sdf.circle(x, y, 0, 0, 0.36)),
    ),
    _object(
        "cross",
        (
            "primary",
            lambda x, y: sdf.union(sdf.box(x, y, 0, 0, 0.19, 0.6), sdf.box(x, y, 0, 0, 0.6, 0.19)),
        ),
    ),
    _object(
        "ring",
        (
            "primary",
            lambda x, y: sdf.subtract(sdf.circle(x, y, 0, 0, 0.6), sdf.circle(x, y, 0, 0, 0.33)),
        ),
    ),
    _object(
        "gem",
        (
            "primary",
            lambda x, y: sdf.polygon(
                x, y, [(-0.36, -0.45), (0.36, -0.45), (0.62, -0.12), (0, 0.6), (-0.62, -0.12)]
            ),
        ),
        ("secondary", lambda x, y: sdf.polygon(x, y, [(-0.28, -0.12), (0.28, -0.12), (0, 0.6)])),
    ),
    _object(
        "fish",
        ("secondary", lambda x, y: sdf.polygon(x, y, [(0.25, 0), (0.64, -0.34), (0.64, 0.34)])),
        ("primary", lambda x, y: sdf.ellipse(x, y, -0.12, 0, 0.5, 0.33)),
        ("accent", lambda x, y: sdf.circle(x, y, -0.36, -0.08, 0.08)),
    ),
    _object(
        "flower",
        ("secondary", lambda x, y: sdf.box(x, y, 0, 0.4, 0.05, 0.24)),
        ("primary", _petals),
        ("accent", lambda x, y: sdf.circle(x, y, 0, -0.18, 0.17)),
    ),
    _object(
        "mushroom",
        ("secondary", lambda x, y: sdf.box(x, y, 0, 0.32, 0.17, 0.3)),
        (
            "primary",
            lambda x, y: sdf.intersect(
                sdf.ellipse(x, y, 0, 0.08, 0.6, 0.64), sdf.box(x, y, 0, -0.3, 0.7, 0.38)
            ),
        ),
        ("accent", lambda x, y: sdf.circle(x, y, -0.16, -0.22, 0.11)),
    ),
    _object(
        "cup",
        (
            "secondary",
            lambda x, y: sdf.subtract(
                sdf.circle(x, y, 0.36, 0.02, 0.27), sdf.circle(x, y, 0.36, 0.02, 0.15)
            ),
        ),
        (
            "primary",
            lambda x, y: sdf.polygon(
                x, y, [(-0.5, -0.45), (0.36, -0.45), (0.26, 0.5), (-0.4, 0.5)]
            ),
        ),
    ),
    _object(
        "boat",
        ("secondary", lambda x, y: sdf.polygon(x, y, [(0.03, -0.62), (0.5, 0.14), (0.03, 0.14)])),
        ("accent", lambda x, y: sdf.polygon(x, y, [(-0.05, -0.5), (-0.4, 0.14), (-0.05, 0.14)])),
        (
            "primary",
            lambda x, y: sdf.polygon(
                x, y, [(-0.62, 0.22), (0.62, 0.22), (0.4, 0.56), (-0.4, 0.56)]
            ),
        ),
    ),
    _object(
        "arrow",
        (
            "primary",
            lambda x, y: sdf.union(
                sdf.box(x, y, -0.2, 0, 0.42, 0.15),
                sdf.polygon(x, y, [(0.12, -0.44), (0.64, 0), (0.12, 0.44)]),
            ),
        ),
    ),
    _object(
        "umbrella",
        ("secondary", lambda x, y: sdf.capsule(x, y, (0, -0.5), (0, 0.52), 0.055)),
        (
            "primary",
            lambda x, y: sdf.intersect(
                sdf.circle(x, y, 0, 0.05, 0.62), sdf.box(x, y, 0, -0.4, 0.7, 0.4)
            ),
        ),
    ),
    _object("cloud", ("primary", _cloud)),
    _object(
        "car",
        (
            "secondary",
            lambda x, y: sdf.polygon(
                x, y, [(-0.36, -0.02), (-0.22, -0.36), (0.22, -0.36), (0.38, -0.02)]
            ),
        ),
        ("primary", lambda x, y: sdf.box(x, y, 0, 0.13, 0.62, 0.18)),
        (
            "accent",
            lambda x, y: sdf.union(
                sdf.circle(x, y, -0.34, 0.34, 0.16), sdf.circle(x, y, 0.34, 0.34, 0.16)
            ),
        ),
    ),
)

_BY_NAME = {content.name: content for content in _OBJECTS}


def _beside(left: str, right: str) -> Content:
    parts = [_placed(p, -0.36, 0.05, 0.56) for p in _BY_NAME[left].parts]
    parts += [_placed(p, 0.36, 0.05, 0.56) for p in _BY_NAME[right].parts]
    phrase = f"{_BY_NAME[left].phrase} beside {_BY_NAME[right].phrase}"
    return Content(f"{left} beside {right}", phrase, tuple(parts))


def _under(below: str, above: str) -> Content:
    parts = [_placed(p, 0.0, 0.28, 0.62) for p in _BY_NAME[below].parts]
    parts += [_placed(p, 0.0, -0.44, 0.42) for p in _BY_NAME[above].parts]
    phrase = f"{_BY_NAME[below].phrase} under {_BY_NAME[above].phrase}"
    return Content(f"{below} under {above}", phrase, tuple(parts))


_SCENES = (
    _beside("house", "tree"),
    _beside("cup", "mushroom"),
    _beside("fish", "star"),
    _under("boat", "moon"),
    _under("car", "cloud"),
    _under("flower", "sun"),
)

CONTENTS: dict[str, Content] = {content.name: content for content in (*_OBJECTS, *_SCENES)}
CONTENT_NAMES: tuple[str, ...] = tuple(CONTENTS)
