"""What mined pairs must reach before a predictor is trained on them."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field


class AcceptanceConfig(BaseModel):
    """Bounds of the check between mining and training."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_pairs: dict[str, int] = Field(
        default_factory=lambda: {"train": 64, "test": 8},
        description="fewest pairs a split",
    )
    min_styles: dict[str, int] = Field(
        default_factory=lambda: {"train": 8, "test": 2},
        description="fewest mined styles a split",
    )
    min_precision: float = Field(
        0.9,
        ge=0.0,
        le=1.0,
        description="share of pairs of one true style, where the corpus knows the truth",
    )
    max_same_content: float = Field(
        0.02,
        ge=0.0,
        le=1.0,
        description="share of pairs with a reference of the target's true content",
    )


class TrueLabels(NamedTuple):
    """Style and content that a drawn image was drawn with."""

    style_id: int
    content: str


@dataclass(frozen=True)
class PairCounts:
    """What the check looks at.

    Attributes:
        pairs: Pairs a split.
        styles: Mined styles a split.
        precision: Share of pairs whose images all have one true style; None without truth.
        same_content: Share of pairs with a reference of the target's content; None without truth.
    """

    pairs: Mapping[str, int]
    styles: Mapping[str, int]
    precision: float | None
    same_content: float | None


def count_pairs(records: Iterable[Mapping[str, Any]]) -> PairCounts:
    """Count mined pairs and compare them with the truth where there is one.

    Args:
        records: The JSON of every pair, with split, style_id, target_meta and ref_metas.
    """
    pairs: Counter[str] = Counter()
    styles: dict[str, set[str]] = {}
    num_right = num_same = num_judged = 0
    for record in records:
        pairs[record["split"]] += 1
        styles.setdefault(record["split"], set()).add(record["style_id"])
        target = true_labels(record["target_meta"])
        refs = [true_labels(meta) for meta in record["ref_metas"]]
        known = [label for label in refs if label is not None]
        if target is None or len(known) < len(refs):
            continue
        num_judged += 1
        num_right += all(label.style_id == target.style_id for label in known)
        num_same += any(label.content == target.content for label in known)
    return PairCounts(
        pairs=dict(pairs),
        styles={split: len(found) for split, found in styles.items()},
        precision=num_right / num_judged if num_judged else None,
        same_content=num_same / num_judged if num_judged else None,
    )


def problems(counts: PairCounts, config: AcceptanceConfig) -> list[str]:
    """Return one line for every bound that is not kept; empty when the pairs are accepted."""
    found = []
    for what, numbers, bounds in (
        ("pairs", counts.pairs, config.min_pairs),
        ("styles", counts.styles, config.min_styles),
    ):
        for split, least in bounds.items():
            number = numbers.get(split, 0)
            if number < least:
                found.append(f"{number} {what} in split {split}, at least {least} needed")
    if counts.precision is not None and counts.precision < config.min_precision:
        found.append(
            f"pair precision {counts.precision:.3f}, at least {config.min_precision} needed"
        )
    if counts.same_content is not None and counts.same_content > config.max_same_content:
        found.append(
            f"same-content share {counts.same_content:.3f}, "
            f"at most {config.max_same_content} allowed"
        )
    return found


def true_labels(metadata: Any) -> TrueLabels | None:
    """Return the truth in the metadata of a drawn image; None for any other image."""
    grid = metadata.get("stylegrid") if isinstance(metadata, dict) else None
    if not isinstance(grid, dict) or not {"style_id", "content"} <= grid.keys():
        return None
    return TrueLabels(int(grid["style_id"]), str(grid["content"]))
