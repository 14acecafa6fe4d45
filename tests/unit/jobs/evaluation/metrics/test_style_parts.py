import pytest
import torch

from jobs.corpus.render import render
from jobs.corpus.styles import sample_style
from jobs.evaluation.metrics.style_parts import PARTS, part_distances

SIZE = 64
COLOURS = {"background": (0.2, 0.3, 0.7), "figure": (0.9, 0.5, 0.2), "outline": (0.1, 0.1, 0.1)}


def masks() -> tuple[torch.Tensor, torch.Tensor]:
    """A disc with a ring around it."""
    axis = torch.arange(SIZE) - SIZE / 2 + 0.5
    radius = (axis[:, None].square() + axis[None].square()).sqrt()
    return (radius < 20).float()[None], ((radius >= 18) & (radius < 20)).float()[None]


def drawn(**changes: tuple[float, float, float]) -> torch.Tensor:
    figure, outline = masks()
    colours = COLOURS | changes
    image = torch.empty(1, 3, SIZE, SIZE)
    for channel in range(3):
        plane = torch.full((1, SIZE, SIZE), colours["background"][channel])
        plane[figure > 0.5] = colours["figure"][channel]
        plane[outline > 0.5] = colours["outline"][channel]
        image[:, channel] = plane
    return image


def distances(sample: torch.Tensor, oracle: torch.Tensor) -> dict[str, float]:
    values = part_distances(sample, oracle, *masks())
    return {part: column[0] for part, column in values.items()}


def test_oracle_itself_has_distance_zero():
    found = distances(drawn(), drawn())
    assert found == pytest.approx(dict.fromkeys(PARTS, 0.0), abs=1e-6)


@pytest.mark.parametrize("part", ["background", "figure", "outline"])
def test_a_changed_colour_moves_its_own_part_only(part):
    found = distances(drawn(**{part: (0.3, 0.8, 0.3)}), drawn())
    assert found[part] > 0.1
    for other in {"background", "figure", "outline"} - {part}:
        assert found[other] == pytest.approx(0.0, abs=1e-5)


@pytest.mark.parametrize("part", ["background", "figure", "outline", "overall"])
def test_distance_rises_with_the_change(part):
    name = "background" if part == "overall" else part
    steps = [0.05, 0.1, 0.2, 0.3]
    colour = COLOURS[name]
    values = [
        distances(drawn(**{name: tuple(c + step for c in colour)}), drawn())[part] for step in steps
    ]
    assert values == sorted(values)
    assert values[0] > 0


def test_a_figure_one_pixel_off_costs_little():
    shifted = torch.roll(drawn(), (1, 1), dims=(2, 3))
    found = distances(shifted, drawn())
    for part in ("background", "figure", "outline"):
        assert found[part] < 0.02
    repainted = distances(drawn(figure=(0.2, 0.9, 0.9)), drawn())
    assert repainted["figure"] > 20 * found["figure"]


def test_hatching_moves_texture_and_smoothing_brings_it_back():
    hatch = 0.15 * torch.sin(torch.arange(SIZE) * 2.1)[None, None, None]
    figure = masks()[0][:, None]
    hatched = (drawn() + hatch * figure).clamp(0, 1)
    half = (drawn() + 0.3 * hatch * figure).clamp(0, 1)
    assert distances(hatched, hatched)["texture"] == 0
    assert distances(half, hatched)["texture"] < distances(drawn(), hatched)["texture"]


def test_a_part_the_oracle_lacks_gives_no_value():
    figure, outline = masks()
    values = part_distances(drawn(), drawn(), figure, torch.zeros_like(outline))
    assert values["outline"] == [None]
    assert values["figure"][0] == pytest.approx(0.0, abs=1e-6)


def test_a_broken_sample_stays_visible():
    broken = drawn()
    broken[:, :, 5:60, 5:60] = torch.nan
    assert all(value != value for value in distances(broken, drawn()).values())


def test_rendered_styles_are_told_apart():
    """The same style drawn elsewhere is nearer to the oracle than another style, in every part."""
    content = "house"
    style, other = sample_style(1, seed=3), sample_style(2, seed=3)
    oracle = render(content, style)
    figure, outline = (torch.from_numpy(m)[None].float() for m in (oracle.figure, oracle.outline))

    def tensor(rendering):
        return torch.from_numpy(rendering.image).permute(2, 0, 1)[None].float() / 255

    same = part_distances(
        tensor(render(content, style, variant=4)), tensor(oracle), figure, outline
    )
    wrong = part_distances(tensor(render(content, other)), tensor(oracle), figure, outline)
    for part in PARTS:
        assert same[part][0] < 0.6 * wrong[part][0], part


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="render the oracles"):
        part_distances(drawn()[:, :, :32, :32], drawn(), *masks())
