"""Shards as they are written."""

import tarfile
from pathlib import Path

import pytest

from i2l_model.errors import InputError
from jobs.shards import BLOCK, ShardWriter, read_shard


def write(folder: Path, samples: dict[str, dict[str, bytes]], **options: int) -> list[Path]:
    with ShardWriter(str(folder), "s", **options) as writer:
        for key, members in samples.items():
            writer.write(key, members)
    return [Path(info.uri) for info in writer.shards]


def numbered(count: int, size: int = 700) -> dict[str, dict[str, bytes]]:
    return {f"k{i:03d}": {"png": bytes([i]) * size, "txt": b"text"} for i in range(count)}


def test_equal_samples_give_equal_bytes_and_true_hashes(tmp_path: Path) -> None:
    first, second = (write(tmp_path / name, numbered(9), max_bytes=8000) for name in "ab")
    assert len(first) > 1
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]
    assert all(p.stat().st_size <= 8000 + 2 * BLOCK for p in first)


def test_other_tools_read_what_is_written(tmp_path: Path) -> None:
    long_key = "folder/" + "n" * 150
    (path,) = write(tmp_path, {long_key: {"txt": b"long"}, "short": {"txt": b"s"}})
    with tarfile.open(path) as tar:
        assert tar.getnames() == [f"{long_key}.txt", "short.txt"]
        assert {m.mtime for m in tar.getmembers()} == {0}
    assert [s.key for s in read_shard(str(path))] == [long_key, "short"]


def test_failed_writer_leaves_no_half_shard(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        write(tmp_path, {"a": {"txt": b"x"}, "not.a.key": {"txt": b"x"}})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("key", ["", "a.b", "./a", "/a", "../a", "a/"])
def test_keys_that_would_not_come_back_are_refused(tmp_path: Path, key: str) -> None:
    with pytest.raises(InputError), ShardWriter(str(tmp_path), "s") as writer:
        writer.write(key, {"txt": b"x"})
