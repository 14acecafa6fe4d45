"""Shards: equal bytes out, and whatever a damaged one still holds in."""

import io
import pickle
import tarfile
from pathlib import Path

import pytest

from i2l_model.errors import InputError
from jobs.shards import BLOCK, ShardWriter, has_shards, list_shards, read_shard, remove_shards


def write(folder: Path, samples: dict[str, dict[str, bytes]], **options: int) -> list[Path]:
    with ShardWriter(str(folder), "s", **options) as writer:
        for key, members in samples.items():
            writer.write(key, members)
    return [Path(info.uri) for info in writer.shards]


def numbered(count: int, size: int = 700) -> dict[str, dict[str, bytes]]:
    return {f"k{i:03d}": {"png": bytes([i]) * size, "txt": b"text"} for i in range(count)}


def read(path: Path, **options: int) -> tuple[list[str], list[tuple[str, str]]]:
    drops: list[tuple[str, str]] = []
    samples = read_shard(str(path), lambda key, reason: drops.append((key, reason)), **options)
    return [sample.key for sample in samples], drops


def test_samples_come_back(tmp_path: Path) -> None:
    samples = numbered(5)
    (path,) = write(tmp_path, samples)
    assert {s.key: s.members for s in read_shard(str(path))} == samples


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


@pytest.mark.parametrize("tar_format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_reads_what_other_tools_write(tmp_path: Path, tar_format: int) -> None:
    name = "bücher/" + "ü" * 120
    with tarfile.open(tmp_path / "x.tar", "w", format=tar_format) as tar:
        tar.add(tmp_path, "folder", recursive=False)
        for extension in ("JPG", "seg.png"):
            info = tarfile.TarInfo(f"./{name}.{extension}")
            info.size = 3
            tar.addfile(info, io.BytesIO(b"abc"))
    (sample,) = read_shard(str(tmp_path / "x.tar"))
    assert sample.key == name
    assert set(sample.members) == {"jpg", "seg.png"}


@pytest.mark.parametrize("tar_format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
@pytest.mark.parametrize("folder", ["", "f" * 120 + "/"])
def test_names_that_are_no_utf8_stay_apart(tmp_path: Path, tar_format: int, folder: str) -> None:
    names = [f"{folder}f{letter}r.txt" for letter in "\udcfc\udcf6"]  # Latin-1 für, för
    with tarfile.open(tmp_path / "x.tar", "w", format=tar_format) as tar:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = 1
            tar.addfile(info, io.BytesIO(b"x"))
    keys, drops = read(tmp_path / "x.tar")
    assert keys == [rf"{folder}f\xfcr", rf"{folder}f\xf6r"]
    assert drops == []


def test_truncated_shard_yields_the_samples_before_the_cut(tmp_path: Path) -> None:
    (path,) = write(tmp_path, numbered(6))
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"k004.png") + BLOCK + 100])
    keys, drops = read(path)
    assert keys == ["k000", "k001", "k002", "k003"]
    assert drops == [("k004", "truncated_shard")]


def test_damaged_header_costs_one_sample(tmp_path: Path) -> None:
    (path,) = write(tmp_path, numbered(6))
    data = bytearray(path.read_bytes())
    place = data.index(b"k002.txt")
    data[place : place + 200] = b"\xff" * 200
    path.write_bytes(bytes(data))
    keys, drops = read(path)
    assert keys == ["k000", "k001", "k003", "k004", "k005"]
    assert drops == [("k002", "corrupt_header")]


def test_scattered_members_make_no_half_samples(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for name in ("a.png", "b.png", "b.txt", "a.txt"):
            info = tarfile.TarInfo(name)
            info.size = 1
            tar.addfile(info, io.BytesIO(b"x"))
    keys, drops = read(tmp_path / "x.tar")
    assert keys == ["a", "b"]
    assert drops == [("a", "non_adjacent_key")]


def test_large_members_are_passed_over(tmp_path: Path) -> None:
    (path,) = write(tmp_path, {"a": {"png": b"x" * 5000}, "b": {"png": b"x"}})
    assert read(path, max_member_bytes=1000) == (["b"], [("a", "member_too_large")])


def test_garbage_and_empty_files_hold_no_samples(tmp_path: Path) -> None:
    for name, data in (("g.tar", b"\x01\x02garbage" * 500), ("e.tar", b"")):
        (tmp_path / name).write_bytes(data)
        assert read(tmp_path / name)[0] == []


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (tmp_path / "exploded",))

    (path,) = write(tmp_path, {"a": {"pkl": pickle.dumps(Bomb()), "pt": pickle.dumps(Bomb())}})
    (sample,) = read_shard(str(path))
    assert isinstance(sample.members["pkl"], bytes)
    assert not (tmp_path / "exploded").exists()


def test_failed_writer_leaves_no_half_shard(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        write(tmp_path, {"a": {"txt": b"x"}, "not.a.key": {"txt": b"x"}})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("key", ["", "a.b", "./a"])
def test_keys_that_would_not_come_back_are_refused(tmp_path: Path, key: str) -> None:
    with pytest.raises(InputError), ShardWriter(str(tmp_path), "s") as writer:
        writer.write(key, {"txt": b"x"})


def test_shards_are_listed_by_folder_file_and_pattern(tmp_path: Path) -> None:
    paths = write(tmp_path, numbered(9), max_bytes=8000)
    names = [str(path) for path in paths]
    assert list_shards(str(tmp_path)) == names
    assert list_shards(names[0]) == names[:1]
    last = f"{len(names) - 1:05d}"
    assert list_shards(f"{tmp_path}/s-{{00000..{last}}}.tar") == names
    assert list_shards(f"{tmp_path}/s-{{00001,00000}}.tar") == names[:2]


def test_missing_shards_are_input_errors(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not an existing folder"):
        list_shards(str(tmp_path / "none"))
    with pytest.raises(InputError, match=r"holds no \.tar shards"):
        list_shards(str(tmp_path))
    with pytest.raises(InputError, match="does not exist"):
        list_shards(f"{tmp_path}/s-{{0..3}}.tar")


def test_only_shards_of_the_writer_are_removed(tmp_path: Path) -> None:
    write(tmp_path, numbered(9), max_bytes=8000)
    write(tmp_path / "deeper", numbered(1))
    others = {tmp_path / name for name in ("s.tar", "s-1.tar", "xs-00000.tar", "s-00000.tar.txt")}
    for path in others:
        path.touch()
    remove_shards(str(tmp_path), "s")
    assert {path for path in tmp_path.iterdir() if path.is_file()} == others
    assert has_shards(str(tmp_path / "deeper"))
    remove_shards(str(tmp_path / "none"), "s")


def test_an_empty_folder_has_no_shards(tmp_path: Path) -> None:
    assert not has_shards(str(tmp_path))
    assert not has_shards(str(tmp_path / "none"))
