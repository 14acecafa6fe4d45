"""Pair shards replace those of an earlier run and nothing else, and what they tell can be read."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from jobs.mining.captions import read_caption
from jobs.mining.mined import MinedPairs
from jobs.mining.pair import Pair
from jobs.mining.pairs import order_pairs, sample_json, write_pairs
from jobs.mining.spool import ImageSpool, SpooledTexts
from jobs.progress import NullProgress
from jobs.shards import ShardInfo
from tests.mined_pairs import STYLE_SIZE, mined_pairs


def written(mined: MinedPairs, output: Path) -> dict[str, list[ShardInfo]]:
    sha = np.arange(2 * len(mined.rows), dtype=np.uint64).reshape(-1, 2)
    with ImageSpool() as spool:
        for row in mined.rows.tolist():
            spool.add(row, f"image {row}".encode())
            spool.add_texts(row, SpooledTexts(f"k{row}", "in.tar", "a dog", {"row": row}))
        ordered = order_pairs(mined, sha)
        return write_pairs(mined, ordered, spool, read_caption, 1, str(output), NullProgress())


def only(mined: MinedPairs, splits: set[str]) -> MinedPairs:
    styles = {n for n, name in enumerate(mined.names) if mined.splits[name] in splits}
    return replace(mined, selection=mined.selection.only(styles, "test"))


def test_old_pairs_go_and_other_files_stay(tmp_path: Path) -> None:
    train, test = tmp_path / "shards" / "train", tmp_path / "shards" / "test"
    mined = mined_pairs()
    written(mined, tmp_path)
    assert len(list(test.iterdir())) == 1
    foreign = (train / "own.tar", tmp_path / "shards" / "pack-00000.tar")
    for path in foreign:
        path.write_bytes(b"x")
    shards = written(only(mined, {"train"}), tmp_path)
    assert [len(shards[split]) for split in ("train", "val", "test")] == [1, 0, 0]
    assert list(test.iterdir()) == []
    assert all(path.read_bytes() == b"x" for path in foreign)


def test_index_and_shards_hold_the_pairs_in_order(tmp_path: Path) -> None:
    mined = mined_pairs()
    shards = written(mined, tmp_path)
    rows = pq.read_table(tmp_path / "index.parquet").to_pylist()
    assert len(rows) == len(mined.selection.pairs) == 6 * STYLE_SIZE
    places = [
        (("train", "val", "test").index(r["split"]), r["style_id"], r["pair_id"]) for r in rows
    ]
    assert places == sorted(places)
    assert len(set(places)) == len(places)
    assert sum(info.num_samples for infos in shards.values() for info in infos) == len(rows)
    assert {shard for row in rows for shard in row["ref_shards"]} == {"in.tar"}
    data = (tmp_path / "shards" / "train" / "pairs-00000.tar").read_bytes()
    assert f"image {rows[0]['target_key'][1:]}".encode() in data


def test_half_an_emoji_in_the_metadata_is_replaced() -> None:
    metas = [json.loads(r'{"title": "dog \ud83d"}'), json.loads(r'{"title": "dog \ud83d\udc36"}')]
    texts = [SpooledTexts(f"k{n}", "s.tar", "a dog", meta) for n, meta in enumerate(metas)]
    with ImageSpool() as spool:
        for row, text in enumerate(texts):
            spool.add_texts(row, text)
        texts = [spool.texts(row) for row in range(2)]
    told = json.loads(sample_json({"pair_id": "x"}, texts, read_caption).decode())
    assert told["target_meta"] == {"title": "dog \ufffd"}
    assert told["ref_metas"] == [{"title": "dog \N{DOG FACE}"}]


def test_pair_ids_follow_the_images_not_their_numbers() -> None:
    mined = mined_pairs(1)
    sha = np.random.default_rng(0).integers(0, 2**63, (len(mined.rows), 2), dtype=np.uint64)
    order = order_pairs(mined, sha)
    turned = [
        Pair(p.style, len(sha) - 1 - p.target, tuple(len(sha) - 1 - r for r in p.refs), 0.8, 0.2)
        for p in mined.selection.pairs
    ]
    other = replace(mined, selection=replace(mined.selection, pairs=tuple(turned)))
    assert order_pairs(other, sha[::-1]).pair_ids.tolist() == order.pair_ids.tolist()
