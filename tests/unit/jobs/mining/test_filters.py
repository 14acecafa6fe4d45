"""Thresholds on score columns: single reasons, counts, and unknown is not good enough."""

from dataclasses import dataclass, field

import numpy as np
import pytest

from jobs.mining.config import MiningConfig
from jobs.mining.filters import apply_filters

NAN = float("nan")


@dataclass
class Columns:
    opt_out: np.ndarray
    licence: np.ndarray
    aesthetic: np.ndarray
    watermark: np.ndarray
    nsfw: np.ndarray
    licences: list[str] = field(default_factory=lambda: ["", "CC0-1.0", "proprietary"])
    reason: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.reason = np.full(len(self.opt_out), "", dtype=object)

    def is_kept(self) -> np.ndarray:
        return self.reason == ""

    def drop(self, rows: np.ndarray, reason: str) -> None:
        self.reason[rows] = reason


def columns(**changes: object) -> Columns:
    """Six samples; scores fall from good to bad and to unknown."""
    values: dict = {
        "opt_out": [False, False, False, False, False, True],
        "licence": [1, 1, 2, 1, 0, 1],
        "aesthetic": [6.0, 5.0, 4.0, 7.0, 7.0, NAN],
        "watermark": [0.0, 0.5, 0.1, 0.9, NAN, 0.9],
        "nsfw": [0.0, 0.1, 0.1, 0.1, 0.1, 1.0],
    }
    return Columns(**{name: np.array(column) for name, column in (values | changes).items()})


def reasons(filters: dict, **changes: object) -> list[str]:
    samples = columns(**changes)
    apply_filters(samples, MiningConfig(filters=filters))
    return samples.reason.tolist()


def test_opt_out_is_respected_unless_switched_off() -> None:
    assert reasons({}) == [""] * 5 + ["opt_out"]
    assert reasons({"respect_opt_out": False}) == [""] * 6


def test_licences_are_an_allow_list() -> None:
    missed = "licence_not_allowed"
    assert reasons({"licences": ["CC0-1.0"]}) == ["", "", missed, "", missed, "opt_out"]


def test_limits_are_inclusive_and_unknown_scores_miss_them() -> None:
    assert reasons({"max_watermark": 0.5})[:5] == ["", "", "", "watermark", "watermark"]
    assert reasons({"min_aesthetic": 5, "respect_opt_out": False}) == [
        "", "", "low_aesthetic", "", "", "low_aesthetic",
    ]  # fmt: skip
    assert reasons({"max_nsfw": 0.05})[:2] == ["", "nsfw"]


def test_outcomes_count_in_and_out_in_order() -> None:
    samples = columns()
    config = MiningConfig(
        filters={"min_aesthetic": 5, "max_watermark": 0.5},
        scorers={"nsfw": "skip", "watermark": "models/watermark"},
    )
    outcomes = apply_filters(samples, config)
    assert [(o.name, o.num_in, o.num_out, o.threshold, o.scores) for o in outcomes] == [
        ("opt_out", 6, 5, True, "metadata"),
        ("licence", 5, 5, None, "metadata"),
        ("aesthetic", 5, 4, 5.0, "metadata"),
        ("watermark", 4, 2, 0.5, "models/watermark"),
        ("nsfw", 2, 2, None, "skip"),
    ]
    assert samples.reason.tolist() == ["", "", "low_aesthetic", "watermark", "watermark", "opt_out"]


@pytest.mark.parametrize("score", ["aesthetic", "watermark", "nsfw"])
def test_a_limit_on_a_skipped_score_is_refused(score: str) -> None:
    limit = ("min_" if score == "aesthetic" else "max_") + score
    with pytest.raises(ValueError, match=rf"filters\.{limit} .* scorers\.{score} is skip"):
        MiningConfig(filters={limit: 0.5}, scorers={score: "skip"})
