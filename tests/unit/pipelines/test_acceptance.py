from typing import Any

from pipelines.acceptance import AcceptanceConfig, count_pairs, problems

RELAXED = AcceptanceConfig(min_pairs={}, min_styles={})


def meta(style: int, content: str) -> dict[str, Any]:
    return {"stylegrid": {"style_id": style, "content": content}, "licence": "CC0-1.0"}


def record(
    target: dict[str, Any] | None,
    *refs: dict[str, Any] | None,
    split: str = "train",
    style: str = "s",
) -> dict[str, Any]:
    return {"split": split, "style_id": style, "target_meta": target, "ref_metas": list(refs)}


def test_pairs_and_styles_are_counted_by_split() -> None:
    counts = count_pairs(
        [record(None, None, style="a"), record(None, None, style="b"), record(None, split="test")]
    )
    assert counts.pairs == {"train": 2, "test": 1}
    assert counts.styles == {"train": 2, "test": 1}
    assert counts.precision is None
    assert counts.same_content is None


def test_a_pair_is_right_only_if_all_references_have_the_target_style() -> None:
    counts = count_pairs(
        [
            record(meta(1, "cat"), meta(1, "dog"), meta(1, "sun")),
            record(meta(1, "cat"), meta(1, "dog"), meta(2, "sun")),
        ]
    )
    assert counts.precision == 0.5


def test_one_reference_with_the_target_content_counts_as_same_content() -> None:
    counts = count_pairs(
        [record(meta(1, "cat"), meta(1, "dog"), meta(1, "cat")), record(meta(1, "a"), meta(1, "b"))]
    )
    assert counts.same_content == 0.5


def test_pairs_without_truth_are_not_judged() -> None:
    counts = count_pairs([record(meta(1, "cat"), {"url": "x"}), record(meta(1, "a"), meta(1, "b"))])
    assert counts.precision == 1.0


def test_every_bound_that_is_not_kept_has_a_line() -> None:
    counts = count_pairs([record(meta(1, "cat"), meta(2, "cat"))])
    config = AcceptanceConfig(min_pairs={"train": 2, "test": 1}, min_styles={"train": 2})
    assert problems(counts, config) == [
        "1 pairs in split train, at least 2 needed",
        "0 pairs in split test, at least 1 needed",
        "1 styles in split train, at least 2 needed",
        "pair precision 0.000, at least 0.9 needed",
        "same-content share 1.000, at most 0.02 allowed",
    ]


def test_good_pairs_are_accepted() -> None:
    assert problems(count_pairs([record(meta(1, "cat"), meta(1, "dog"))]), RELAXED) == []
