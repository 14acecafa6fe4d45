"""Pair shards replace those of an earlier run, and nothing else."""

from pathlib import Path

from jobs.mining.pairs import PairRecord, write_pair_shards
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
