"""Charts: marks where they belong, well-formed SVG, and a note instead of nothing."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from jobs.mining.charts import NO_VALUES, Line, Mark, bars, curves, tradeoff
from jobs.mining.histogram import histogram


def marks(svg: str) -> list[float]:
    return [float(x) for x in re.findall(r'<line class="mark" x1="([\d.]+)"', svg)]


def test_bars_are_well_formed_and_stack() -> None:
    data = histogram({"low": [0, 0, 1], "high <&>": [1, 1]}, num_bins=2)
    tree = ElementTree.fromstring(bars("t <&>", data, ("a", "b"), [Mark("m <&>", 0.5)]))
    assert tree.get("aria-label") == "t <&>"
    heights = [float(r.get("height", 0)) for r in tree.iter("rect") if r.get("height") != "10"]
    assert heights == pytest.approx([158 * 2 / 3, 158 / 3, 158 * 2 / 3], abs=0.2)


def test_marks_outside_lie_on_the_border_and_endless_ones_are_left_out() -> None:
    data = histogram({"x": [0.0, 1.0]})
    svg = bars("x", data, ("a",), [Mark("far", 9), Mark("none", float("inf"))])
    assert marks(svg) == [506.0]


@pytest.mark.parametrize("values", [[], [float("nan")]])
def test_no_values_is_a_note(values: list[float]) -> None:
    assert bars("x", histogram({"x": values}), ("a",)) == NO_VALUES
    assert curves("x", [0.5], [Line("a", "a", [1])]) == NO_VALUES
    assert tradeoff("x", [], [], "a") == NO_VALUES


def test_equal_values_make_one_bar() -> None:
    assert bars("x", histogram({"x": np.full(9, 3.0)}), ("a",)).count("<rect") == 1


def test_the_tradeoff_marks_the_chosen_point() -> None:
    svg = tradeoff("coverage", [1.0, 0.8, 0.5], [0.6, 0.9, 0.99], "a", [Mark("cut", 0.8, 0.9)])
    tree = ElementTree.fromstring(svg)
    (dot,) = tree.iter("circle")
    (line,) = tree.iter("polyline")
    points = line.get("points", "").split()
    assert f"{float(dot.get('cx', 0)):.1f},{float(dot.get('cy', 0)):.1f}" == points[1]
