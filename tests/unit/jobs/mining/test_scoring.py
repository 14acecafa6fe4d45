"""Scores against known labels, by hand."""

import numpy as np
import pytest

from jobs.corpus.render import render
from jobs.corpus.styles import sample_style
from jobs.mining.diversity import gini
from jobs.mining.scoring import Label, baseline_scores, score_pairs

LABELS = {
    "a1": Label("a", "ball"),
    "a2": Label("a", "star"),
    "a3": Label("a", "fish"),
    "b1": Label("b", "ball"),
    "b2": Label("b", "star"),
    "c1": Label("c", "ball"),
}


def row(target: str, *refs: str, split: str = "train") -> dict:
    return {"target_key": target, "ref_keys": list(refs), "split": split}


def test_scores() -> None:
    rows = [
        row("a1", "a2", "a3"),
        row("a2", "a1", "b1"),
        row("b1", "c1"),
        row("a3", "a1", split="test"),
    ]
    scores = score_pairs(rows, LABELS)
    assert scores.num_pairs == 4
    assert scores.precision == pytest.approx(2 / 4)
    assert scores.ref_precision == pytest.approx(4 / 6)
    assert scores.style_recall == pytest.approx(1 / 2)  # c has one content: not pairable
    assert scores.image_recall == pytest.approx(3 / 5)
    assert scores.same_content == pytest.approx(1 / 4)
    assert scores.split_leak == 1.0


def test_no_pairs_score_zero() -> None:
    scores = score_pairs([], LABELS)
    assert (scores.precision, scores.style_recall, scores.same_content) == (0, 0, 0)


def test_baselines_are_ordered() -> None:
    contents = ("ball", "house", "fish", "star", "moon", "cup")
    cells = [(s, c) for s in range(10) for c in contents]
    images = [render(c, sample_style(s, 1), variant=3).image for s, c in cells]
    keys = [f"{s}-{c}" for s, c in cells]
    labels = {key: Label(str(s), c) for key, (s, c) in zip(keys, cells, strict=True)}
    scores = baseline_scores(images, keys, labels, num_refs=2)
    random, colour, style = (scores[n] for n in ("random", "colour histogram", "style only"))
    assert random.ref_precision < 0.3
    assert random.ref_precision < colour.ref_precision <= style.ref_precision


def test_gini() -> None:
    assert gini([3, 3, 3]) == pytest.approx(0.0)
    assert gini([0, 0, 0, 9]) == pytest.approx(0.75)
    assert gini([]) == gini([0, 0]) == 0.0
    assert np.isclose(gini([1, 2, 3]), 2 / 9)
