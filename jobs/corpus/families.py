"""Hard grids: styles that a colour histogram cannot tell apart.

Beside ordinary styles, each with a palette of its own, a hard grid holds families of styles that
share one palette, and styles whose palette is drawn anew for each image. What tells these styles
apart is ground pattern, fill texture, outline, shading, medium and grain; any two of one family,
and any two of varying palette, differ visibly in at least ``_MIN_DIFFERENCES`` of them.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from jobs.corpus.styles import (
    BACKGROUNDS,
    MEDIA,
    RGB,
    SHADINGS,
    TEXTURES,
    Style,
    sample_palette,
    sample_style,
)

StyleGroup = Literal["ordinary", "shared_palette", "varying_palette"]

_KINDS = {
    "background_kind": BACKGROUNDS,
    "texture_kind": TEXTURES,
    "shading_kind": SHADINGS,
    "medium_kind": MEDIA,
}
_PLAIN = {"flat", "none", "clean"}
_MIN_DIFFERENCES = 2
_MAX_TRIES = 4000
# Least strength with which a feature counts as visible; weaker ones are raised to it.
_VISIBLE = {
    "texture_strength": 0.55,
    "shading_strength": 0.45,
    "medium_strength": 0.7,
    "grain_strength": 0.1,
    "outline_width": 0.05,
}


class FamilyConfig(BaseModel):
    """How much of a grid is hard, and which kinds of styles it leaves out."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    shared_palette: float = Field(
        1 / 3, ge=0, le=1, description="share of styles in families that share one palette"
    )
    varying_palette: float = Field(
        1 / 3, ge=0, le=1, description="share of styles whose palette is drawn for each image"
    )
    family_size: int = Field(6, ge=2, description="styles of a family that shares its palette")
    without: tuple[str, ...] = Field(
        (), description="kinds that no style uses, as texture:hatch; for tuning without them"
    )

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        if self.shared_palette + self.varying_palette > 1 + 1e-9:
            raise ValueError("shared_palette + varying_palette must be at most 1; lower one")
        known = {f"{kind.removesuffix('_kind')}:{v}" for kind, vs in _KINDS.items() for v in vs}
        removable = {name for name in known if name.split(":")[1] not in _PLAIN}
        for name in self.without:
            if name not in removable:
                choice = ", ".join(sorted(removable))
                raise ValueError(f"{name!r} is no kind to leave out; known: {choice}")
        return self


@dataclass(frozen=True, slots=True)
class GridStyle:
    """A style of a hard grid, and what group it belongs to.

    Attributes:
        style: The appearance; of a varying palette, the palette is replaced for each image.
        group: What a colour histogram makes of it.
        family: Number of the palette that it shares, -1 for none.
    """

    style: Style
    group: StyleGroup
    family: int = -1

    def of_image(self, rng: np.random.Generator) -> Style:
        """The appearance of one image."""
        if self.group != "varying_palette":
            return self.style
        return _coloured(self.style, sample_palette(rng))


def sample_grid_styles(
    config: FamilyConfig, first_style: int, num_styles: int, seed: int
) -> list[GridStyle]:
    """The styles of a hard grid, numbered from ``first_style``; the same every time."""
    num_shared = round(config.shared_palette * num_styles)
    num_varying = round(config.varying_palette * num_styles)
    rng = np.random.default_rng([seed, first_style, 0xFA31])
    styles: list[GridStyle] = []
    family: list[Style] = []
    varying: list[Style] = []
    for number in range(num_styles):
        style_id = first_style + number
        if number < num_shared:
            if number % config.family_size == 0:
                family = []
            style = _apart_from(family, style_id, config, rng)
            if family:
                style = _coloured(style, _palette_of(family[0]))
            family.append(style)
            styles.append(GridStyle(style, "shared_palette", number // config.family_size))
        elif number < num_shared + num_varying:
            style = _apart_from(varying, style_id, config, rng)
            varying.append(style)
            styles.append(GridStyle(style, "varying_palette"))
        else:
            styles.append(GridStyle(_allowed(style_id, config, rng), "ordinary"))
    return styles


def visible_differences(first: Style, second: Style) -> int:
    """Number of features beside colour that tell two styles apart at a glance."""
    differences = sum(bool(getattr(first, kind) != getattr(second, kind)) for kind in _KINDS)
    differences += (first.outline_width > 0) != (second.outline_width > 0)
    differences += (first.grain_strength > 0) != (second.grain_strength > 0)
    return differences


def _apart_from(
    others: list[Style], style_id: int, config: FamilyConfig, rng: np.random.Generator
) -> Style:
    """A style whose features are visible and that no one takes for one of ``others``."""
    for _ in range(_MAX_TRIES):
        style = _pronounced(_allowed(style_id, config, rng))
        if all(visible_differences(style, other) >= _MIN_DIFFERENCES for other in others):
            return style
    raise ValueError(
        f"{len(others)} styles that differ in {_MIN_DIFFERENCES} kinds leave no room for another; "
        "lower num_styles or varying_palette, or leave out fewer kinds"
    )


def _allowed(style_id: int, config: FamilyConfig, rng: np.random.Generator) -> Style:
    """A style without the kinds that are left out."""
    while True:
        style = sample_style(style_id, int(rng.integers(1 << 62)))
        used = {f"{kind.removesuffix('_kind')}:{getattr(style, kind)}" for kind in _KINDS}
        if not used & set(config.without):
            return style


def _pronounced(style: Style) -> Style:
    """The same with each feature that is there strong enough to be seen."""
    raised = {
        name: max(getattr(style, name), least)
        for name, least in _VISIBLE.items()
        if getattr(style, name) > 0
    }
    return dataclasses.replace(style, **raised)


def _coloured(style: Style, palette: dict[str, RGB]) -> Style:
    changes: dict[str, Any] = dict(palette)
    return dataclasses.replace(style, **changes)


def _palette_of(style: Style) -> dict[str, RGB]:
    names = ("background", "background_2", "primary", "secondary", "accent", "outline")
    return {name: getattr(style, name) for name in names}
