"""Pair shards replace those of an earlier run and nothing else, and what they tell can be read."""

import json
from pathlib import Path

import numpy as np

from jobs.mining.captions import read_caption
from jobs.mining.features import Samples
from jobs.mining.pairs import PairRecord, describe_pairs, write_pair_shards
from jobs.mining.selection import Pair
from jobs.mining.spool import ImageSpool
from jobs.progress import NullProgress


def record(pair_id: str, split: str = "train") -> PairRecord:
    return PairRecord({"pair_id": pair_id, "split": split}, refs=(0,), target=1, sample_json=b"{}")


def test_old_pairs_go_and_other_files_stay(tmp_path: Path) -> None:
    train, test = tmp_path / "shards" / "train", tmp_path / "shards" / "test"
    with ImageSpool() as spool:
        spool.add(0, b"reference")
        spool.add(1, b"target")
        write_pair_shards(
            [record("a"), record("b", "test")], spool, 1, str(tmp_path), NullProgress()
        )
        foreign = (train / "own.tar", tmp_path / "shards" / "pack-00000.tar")
        for path in foreign:
            path.write_bytes(b"x")
        shards = write_pair_shards([record("c")], spool, 1, str(tmp_path), NullProgress())
    assert [len(shards[split]) for split in ("train", "val", "test")] == [1, 0, 0]
    assert b"c.target.jpg" in (train / "pairs-00000.tar").read_bytes()
    assert list(test.iterdir()) == []
    assert all(path.read_bytes() == b"x" for path in foreign)


def samples_with(metas: list[str]) -> Samples:
    count = len(metas)
    numbers = np.arange(count)
    vectors = np.zeros((count, 1), dtype=np.float16)
    return Samples(
        shard=["s.tar"] * count,
        key=[f"k{i}" for i in numbers],
        reason=[""] * count,
        caption=["a dog"] * count,
        meta=metas,
        size=np.full((count, 2), 64),
        sha256=[f"{i}" for i in numbers],
        phash=numbers.astype(np.uint64),
        thumbnail=[b""] * count,
        embedded=numbers,
        style=vectors,
        content=vectors,
    )


def test_half_an_emoji_in_the_metadata_is_replaced() -> None:
    samples = samples_with([r'{"title": "dog \ud83d"}', r'{"title": "dog \ud83d\udc36"}'])
    pair = Pair(style=0, target=0, refs=(1,), style_similarity=0.9, content_similarity=0.1)
    captions = {row: read_caption("a dog") for row in range(2)}
    (described,) = describe_pairs([pair], [0, 1], samples, captions, ["x"], {"x": "train"})
    written = json.loads(described.sample_json.decode())
    assert written["target_meta"] == {"title": "dog \ufffd"}
    assert written["ref_metas"] == [{"title": "dog \N{DOG FACE}"}]
