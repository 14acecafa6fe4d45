"""What the report shows: the same for the same seed, at the border, and never much."""

from dataclasses import replace

import numpy as np

from jobs.mining.examples import (
    IMAGES_A_REASON,
    KEYS_A_REASON,
    NUM_LINKS,
    choose_examples,
    link_groups,
)
from jobs.mining.selection import Selection
from tests.mined_pairs import NUM_DROPPED, mined_pairs, report_source


def examples(seed: int = 0):
    source = report_source()
    return source, choose_examples(
        source.mined, source.reason, source.reason_names, source.drops, seed
    )


def test_links_come_from_both_sides_of_the_cut() -> None:
    mined = mined_pairs()
    kept, dropped, *_ = link_groups(mined)
    cut = mined.cut.threshold
    assert list(kept.scores) == sorted(kept.scores)
    assert min(kept.scores) == mined.styles.edges.csls.min() >= cut
    assert max(dropped.scores) == mined.edges.csls[mined.edges.csls < cut].max()
    assert kept.count + dropped.count == len(mined.edges)
    assert len(kept.links) == len(dropped.links) == NUM_LINKS


def test_one_image_does_not_fill_a_group() -> None:
    mined = mined_pairs()
    edges = mined.styles.edges
    hub = np.where((edges.first == 0) | (edges.second == 0), -1, edges.csls).astype(np.float32)
    styles = replace(mined.styles, edges=replace(edges, csls=hub))
    (kept, *_) = link_groups(replace(mined, styles=styles))
    assert sum(0 in link for link in kept.links) == 1


def test_dropped_images_are_drawn_by_reason() -> None:
    source, chosen = examples()
    for reason, rows in chosen.drops.items():
        code = source.reason_names.index(reason)
        assert all(source.reason[row] == code for row in rows)
        limit = KEYS_A_REASON if reason in ("corrupt_image", "truncated_shard") else IMAGES_A_REASON
        assert len(rows) == min(NUM_DROPPED[reason], limit)


def test_rows_need_a_picture_or_a_key_and_not_both() -> None:
    source, chosen = examples()
    pictures, keys = chosen.picture_rows(source.mined), chosen.key_rows()
    assert not set(pictures) & set(keys)
    assert {source.reason_names[source.reason[row]] for row in keys} == {
        "corrupt_image",
        "truncated_shard",
    }
    assert all(row in pictures for row in chosen.drops["low_aesthetic"])


def test_the_seed_decides() -> None:
    assert examples(1)[1] == examples(1)[1]
    assert examples(1)[1].styles != examples(2)[1].styles or examples(1)[1] != examples(2)[1]


def test_nothing_to_show_is_fine() -> None:
    source = report_source()
    empty = Selection((), 1.0, {}, {}, {})
    none = np.zeros(0, dtype=np.int64)
    edges = source.mined.edges.where(none)
    styles = replace(source.mined.styles, members=(), edges=edges)
    mined = replace(source.mined, selection=empty, edges=edges, styles=styles)
    chosen = choose_examples(mined, source.reason, source.reason_names, {}, 0)
    assert chosen.picture_rows(mined) == []
