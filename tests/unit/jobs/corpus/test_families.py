"""Hard grids hold what they promise: palettes that are shared or vary, and visible differences."""

import json
from collections import defaultdict
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from jobs.corpus.families import FamilyConfig, GridStyle, sample_grid_styles, visible_differences
from jobs.corpus.stylegrid import CorpusConfig, drawn_images, write_corpus
from jobs.progress import NullProgress
from jobs.shards import read_shard

STYLES = sample_grid_styles(FamilyConfig(), 0, 54, seed=5)
COLOURS = ("background", "background_2", "primary", "secondary", "accent", "outline")


def palette(style: GridStyle, seed: int = 0) -> tuple[tuple[float, float, float], ...]:
    drawn = style.of_image(np.random.default_rng(seed))
    return tuple(getattr(drawn, name) for name in COLOURS)


def families() -> dict[int, list[GridStyle]]:
    found = defaultdict(list)
    for style in STYLES:
        if style.group == "shared_palette":
            found[style.family].append(style)
    return found


def test_groups_have_their_shares_and_numbers_go_on() -> None:
    groups = [style.group for style in STYLES]
    assert {group: groups.count(group) for group in groups} == {
        "shared_palette": 18,
        "varying_palette": 18,
        "ordinary": 18,
    }
    assert [style.style.style_id for style in STYLES] == list(range(54))


def test_a_family_shares_its_palette_and_no_other_family_has_it() -> None:
    assert [len(members) for members in families().values()] == [6, 6, 6]
    palettes = [{palette(style) for style in members} for members in families().values()]
    assert all(len(known) == 1 for known in palettes)
    assert len(set.union(*palettes)) == 3


def test_palettes_vary_from_image_to_image_and_all_else_stays() -> None:
    for style in STYLES:
        assert (palette(style, 1) != palette(style, 2)) == (style.group == "varying_palette")
        assert not visible_differences(style.of_image(np.random.default_rng(1)), style.style)


def test_styles_that_colour_cannot_tell_apart_differ_in_two_other_ways() -> None:
    varying = [style for style in STYLES if style.group == "varying_palette"]
    for members in (varying, *families().values()):
        for first, second in combinations(members, 2):
            assert visible_differences(first.style, second.style) >= 2


def test_kinds_are_left_out_everywhere() -> None:
    config = FamilyConfig(without=("texture:hatch", "medium:brush"))
    for style in sample_grid_styles(config, 0, 60, seed=5):
        assert style.style.texture_kind != "hatch"
        assert style.style.medium_kind != "brush"
    assert any(style.style.texture_kind == "hatch" for style in STYLES)


@pytest.mark.parametrize("name", ["texture:flat", "medium:oil", "halftone"])
def test_kinds_that_cannot_be_left_out_are_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="no kind to leave out"):
        FamilyConfig(without=(name,))


def test_shares_beyond_one_are_refused() -> None:
    with pytest.raises(ValidationError, match="at most 1"):
        FamilyConfig(shared_palette=0.7, varying_palette=0.5)


def test_more_styles_than_can_differ_are_refused() -> None:
    config = FamilyConfig(
        shared_palette=0,
        varying_palette=1,
        without=(
            *(f"background:{kind}" for kind in ("linear", "radial", "stripes", "checker", "dots")),
            *(f"texture:{kind}" for kind in ("hatch", "crosshatch", "dots", "mottle")),
            *(f"shading:{kind}" for kind in ("linear", "radial", "rim")),
        ),
    )
    with pytest.raises(ValueError, match="leave no room"):
        sample_grid_styles(config, 0, 60, seed=5)


def test_shards_of_a_hard_grid_tell_the_group_and_drawing_again_gives_the_same(
    tmp_path: Path,
) -> None:
    config = CorpusConfig(num_styles=6, images_per_style=2, size=32, families=FamilyConfig())
    write_corpus(config, str(tmp_path), NullProgress())
    (shard,) = tmp_path.glob("*.tar")
    labels = [json.loads(sample.members["json"]) for sample in read_shard(str(shard))]
    assert {label["style_group"] for label in labels} == {
        "ordinary",
        "shared_palette",
        "varying_palette",
    }
    drawn, again = list(drawn_images(config)), list(drawn_images(config))
    assert [style for style, _ in drawn] == [label["style_id"] for label in labels]
    assert all(np.array_equal(a, b) for (_, a), (_, b) in zip(drawn, again, strict=True))


def test_a_plain_grid_is_hashed_as_before_there_were_families() -> None:
    assert "families" not in CorpusConfig().model_dump()
    assert "families" in CorpusConfig(families=FamilyConfig()).model_dump()
