"""Shards: equal bytes out, and whatever a damaged one still holds in."""

import gzip
import io
import random
import subprocess
import tarfile
import tracemalloc
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from jobs.shards import BLOCK, ShardWriter, read_shard
from jobs.shards.reader import MAX_SAMPLE_MEMBERS
from jobs.shards.tar import Tar


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


def test_a_tar_that_ends_without_its_end_mark_may_lack_members(tmp_path: Path) -> None:
    (path,) = write(tmp_path, numbered(3))
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"k002.txt")])
    assert read(path) == (["k000", "k001"], [("k002", "truncated_shard")])
    path.write_bytes(data[: data.index(b"k002.txt") + 100])
    assert read(path) == (["k000", "k001"], [("k002", "truncated_shard")])


@pytest.mark.parametrize("extension", ["png", "txt"])
@pytest.mark.parametrize("start", [0, 124, 148])
@pytest.mark.parametrize("number", [2, 5])
def test_a_damaged_header_costs_its_own_sample(
    tmp_path: Path, extension: str, start: int, number: int
) -> None:
    (path,) = write(tmp_path, numbered(6))
    data = bytearray(path.read_bytes())
    place = data.index(f"k{number:03d}.{extension}".encode())
    data[place + start : place + 200] = b"\xff" * (200 - start)
    path.write_bytes(bytes(data))
    keys, drops = read(path)
    assert keys == [f"k{i:03d}" for i in range(6) if i != number]
    assert drops == [(f"k{number:03d}", "corrupt_header")]


def test_a_sample_that_damage_hides_is_counted(tmp_path: Path) -> None:
    (path,) = write(tmp_path, {f"k{i}": {"png": b"x"} for i in range(5)})
    data = bytearray(path.read_bytes())
    data[2 * 1024 : 2 * 1024 + 512] = b"\xff" * 512
    path.write_bytes(bytes(data))
    assert read(path) == (["k0", "k1", "k3", "k4"], [("", "corrupt_header")])


def make_tar(path: Path, members: list[tuple[str, bytes]], **options: Any) -> Path:
    """A tar whose names are kept as they are."""
    with tarfile.open(path, "w", **options) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def test_scattered_members_make_no_half_samples(tmp_path: Path) -> None:
    names = ("a.png", "b.png", "b.txt", "a.txt")
    path = make_tar(tmp_path / "x.tar", [(name, b"x") for name in names])
    assert read(path) == (["a", "b"], [("a", "non_adjacent_key")])


def test_a_key_that_comes_again_at_once_is_a_duplicate(tmp_path: Path) -> None:
    names = ("a.png", "a.txt", "a.PNG", "a.txt", "b.png", "b.txt")
    path = make_tar(tmp_path / "x.tar", [(name, name.encode()) for name in names])
    drops: list[tuple[str, str]] = []
    first, _ = read_shard(str(path), lambda key, reason: drops.append((key, reason)))
    assert first.members == {"png": b"a.png", "txt": b"a.txt"}
    assert drops == [("a", "duplicate_key")]


@pytest.mark.parametrize(
    "key", ["../x", "/etc/x", "a/../../x", ".//x", "a\\..\\x", "C:\\x", "C:/x", "n" * 5000]
)
@pytest.mark.parametrize("tar_format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_names_that_leave_the_folder_are_dropped(tmp_path: Path, key: str, tar_format: int) -> None:
    members = [(f"{key}.png", b"x"), (f"{key}.txt", b"x"), ("ok.png", b"x")]
    path = make_tar(tmp_path / "x.tar", members, format=tar_format)
    keys, drops = read(path)
    assert keys == ["ok"]
    assert [reason for _, reason in drops] == ["unsafe_name"]


def test_folders_and_dots_follow_the_convention(tmp_path: Path) -> None:
    names = ("v1.5/a.b/x.seg.png", "v1.5/a.b/x.TXT", "./y..dots.png", "z/._y.png", "README")
    path = make_tar(tmp_path / "x.tar", [(name, b"x") for name in names])
    ignored: list[str] = []
    first, second = read_shard(str(path), on_ignore=ignored.append)
    assert (first.key, set(first.members)) == ("v1.5/a.b/x", {"seg.png", "txt"})
    assert (second.key, set(second.members)) == ("y", {".dots.png"})
    assert ignored == ["other", "other"]


def test_what_is_no_image_and_no_text_is_never_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("pkl", "pickle", "pt", "pth", "npy", "npz", "pyd", "cbor", "x" * 40)
    members = dict.fromkeys(names, b"secret" * 1000) | {"jpg": b"x", "caption": b"c"}
    (path,) = write(tmp_path, {"a": members, "b": {"pkl": b"x"}})
    taken: list[bytes | None] = []
    read_member = Tar.read

    def spy(tar: Tar, size: int) -> bytes | None:
        taken.append(read_member(tar, size))
        return taken[-1]

    monkeypatch.setattr(Tar, "read", spy)
    ignored: Counter[str] = Counter()
    first, second = read_shard(str(path), on_ignore=lambda kind: ignored.update([kind]))
    assert first.members == {"jpg": b"x", "caption": b"c"}
    assert second.members == {}
    assert ignored == Counter(names[:-1]) + Counter({"pkl": 1, "other": 1})
    assert sorted(taken) == [b"c", b"x"]


def test_links_devices_and_folders_are_no_samples(tmp_path: Path) -> None:
    kinds = {
        tarfile.SYMTYPE: "symlink",
        tarfile.LNKTYPE: "hardlink",
        tarfile.CHRTYPE: "device",
        tarfile.FIFOTYPE: "device",
        tarfile.DIRTYPE: "",
    }
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for kind in kinds:
            info = tarfile.TarInfo("a.png")
            info.type, info.linkname = kind, "/etc/passwd" * 20
            tar.addfile(info)
        info = tarfile.TarInfo("b.png")
        info.size = 1
        tar.addfile(info, io.BytesIO(b"x"))
    ignored: list[str] = []
    assert [s.key for s in read_shard(str(tmp_path / "x.tar"), on_ignore=ignored.append)] == ["b"]
    assert ignored == [name for name in kinds.values() if name]


def test_sparse_files_are_passed_over(tmp_path: Path) -> None:
    holes = tmp_path / "holes.png"
    with holes.open("wb") as stream:
        for start in range(0, 40 << 20, 1 << 20):
            stream.seek(start)
            stream.write(b"x")
    (tmp_path / "next.png").write_bytes(b"y")
    for tar_format in ("gnu", "pax"):
        path = tmp_path / f"{tar_format}.tar"
        options = ["-C", str(tmp_path), "--sparse", f"--format={tar_format}"]
        subprocess.run(["tar", "-cf", path, *options, "holes.png", "next.png"], check=True)
        ignored: list[str] = []
        samples = list(read_shard(str(path), on_ignore=ignored.append))
        assert [(s.key, s.members) for s in samples] == [("next", {"png": b"y"})]
        assert ignored == ["sparse"]


def test_large_members_are_passed_over(tmp_path: Path) -> None:
    samples = {"a": {"png": b"x" * 5000}, "b": {"png": b"x", "txt": b"x" * 300}, "c": {"png": b"x"}}
    (path,) = write(tmp_path, samples)
    drops = [("a", "member_too_large"), ("b", "member_too_large")]
    assert read(path, max_member_bytes=1000, max_text_bytes=200) == (["c"], drops)


def test_texts_have_a_limit_of_their_own(tmp_path: Path) -> None:
    (path,) = write(tmp_path, {"a": {"jpg": b"x" * (2 << 20)}, "b": {"caption": b"x" * (2 << 20)}})
    assert read(path) == (["a"], [("b", "member_too_large")])


def test_a_sample_of_very_many_members_is_given_up(tmp_path: Path) -> None:
    members = {f"{i}.png": b"x" for i in range(MAX_SAMPLE_MEMBERS + 1)}
    (path,) = write(tmp_path, {"a": members, "b": {"png": b"x"}})
    assert read(path) == (["b"], [("a", "sample_too_large")])
    (path,) = write(tmp_path, {"a": {f"{i}.png": b"x" * 100 for i in range(9)}})
    assert read(path, max_member_bytes=100) == ([], [("a", "sample_too_large")])


@pytest.mark.parametrize("size", [1 << 40, (1 << 63) - 1, (1 << 87) - 1])
def test_sizes_that_cannot_be_cost_no_memory(tmp_path: Path, size: int) -> None:
    info = tarfile.TarInfo("a.png")
    info.size = size
    header = info.tobuf(tarfile.GNU_FORMAT)  # base-256
    after = make_tar(tmp_path / "b.tar", [("b.png", b"x")]).read_bytes()
    (tmp_path / "x.tar").write_bytes(header + b"x" * 5 * BLOCK + after)
    tracemalloc.start()
    assert read(tmp_path / "x.tar") == (["b"], [("a", "truncated_shard")])
    assert tracemalloc.get_traced_memory()[1] < 4 << 20
    tracemalloc.stop()


def test_a_pax_record_tells_the_size(tmp_path: Path) -> None:
    info = tarfile.TarInfo("a.png")
    info.size = 0
    info.pax_headers = {"size": "700", "comment": "ünï" * 400}
    data = info.tobuf(tarfile.PAX_FORMAT) + b"x" * 700 + b"\0" * 324
    after = make_tar(tmp_path / "b.tar", [("b.png", b"x")])
    (tmp_path / "x.tar").write_bytes(data + after.read_bytes())
    first, second = read_shard(str(tmp_path / "x.tar"))
    assert (first.key, first.members) == ("a", {"png": b"x" * 700})
    assert second.key == "b"


def test_shards_that_are_no_tar_say_so_once(tmp_path: Path) -> None:
    blocks = {
        "corrupt_header": b"\x01\x02garbage" * 500,
        "empty_shard": b"",
        "truncated_shard": folder_header(),
        "compressed_shard": gzip.compress(
            make_tar(tmp_path / "g.tar", [("a.png", b"x")]).read_bytes()
        ),
    }
    for reason, data in blocks.items():
        (tmp_path / "x.tar").write_bytes(data)
        assert read(tmp_path / "x.tar") == ([], [("", reason)])


def folder_header() -> bytes:
    info = tarfile.TarInfo("folder")
    info.type = tarfile.DIRTYPE
    return info.tobuf()


def test_an_empty_tar_says_so(tmp_path: Path) -> None:
    path = make_tar(tmp_path / "x.tar", [])
    assert path.stat().st_size > 0
    assert read(path) == ([], [("", "empty_shard")])


def test_concatenated_tars_are_read_whole(tmp_path: Path) -> None:
    first, second = (make_tar(tmp_path / f"{k}.tar", [(f"{k}.png", b"x")]) for k in "ab")
    (tmp_path / "x.tar").write_bytes(first.read_bytes() + second.read_bytes())
    assert read(tmp_path / "x.tar") == (["a", "b"], [])


def mutated(data: bytes, rng: random.Random) -> bytes:
    """One to four things that storage, networks or people do to a file."""
    result = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(len(result) or 1)
        block = place // BLOCK * BLOCK
        kind = rng.randrange(7)
        if kind == 0:
            result[place:] = b""
        elif kind == 1:
            result[place : place + 1] = rng.randbytes(1)
        elif kind == 2:
            result[place : place + rng.randrange(2000)] = rng.randbytes(rng.randrange(2000))
        elif kind == 3:
            result[block : block + BLOCK] = b""
        elif kind == 4:  # a header field, with a checksum that fits again
            at = rng.choice([0, 100, 124, 156, 257, 345])
            result[block + at : block + at + 12] = rng.choice(ODD_FIELDS)
            header = result[block : block + BLOCK]
            total = sum(header) - sum(header[148:156]) + 256
            result[block + 148 : block + 156] = b"%06o\0 " % total
        elif kind == 5:
            result[block:block] = result[: rng.randrange(4) * BLOCK]
        else:
            result[block : block + BLOCK] = bytes(BLOCK)
    return bytes(result)


ODD_FIELDS = [
    b"\x80" + b"\xff" * 11,
    b"\xff" * 12,
    b"-0000000001\0",
    b"77777777777\0",
    b"../x.png\0\0\0\0",
    b"xLKgSX10267D",
    b"L" + b"\0" * 11,
    b"x" + b"\0" * 11,
    b"S" + b"\0" * 11,
    bytes(12),
]


def test_no_damage_makes_the_reader_fail(tmp_path: Path) -> None:
    """Bounded in time by the test's timeout, in memory by what is traced."""
    rng = random.Random(0)
    long = f"{'f' * 90}/{'n' * 90}"
    members = [(f"k{i}.{e}", rng.randbytes(600)) for i in range(4) for e in ("png", "txt", "pkl")]
    originals = [
        make_tar(tmp_path / "x.tar", [*members, (f"{long}.png", b"x")], format=form).read_bytes()
        for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT)
    ]
    tracemalloc.start()
    for number in range(1500):
        (tmp_path / "x.tar").write_bytes(mutated(originals[number % 3], rng))
        reasons: set[str] = set()
        for sample in read_shard(str(tmp_path / "x.tar"), partial(add_reason, reasons)):
            assert all(isinstance(data, bytes) for data in sample.members.values())
            assert ".." not in sample.key.split("/")
        assert reasons <= REASONS
    assert tracemalloc.get_traced_memory()[1] < 16 << 20
    tracemalloc.stop()


def add_reason(reasons: set[str], key: str, reason: str) -> None:
    reasons.add(reason)


REASONS = {
    "truncated_shard",
    "corrupt_header",
    "member_too_large",
    "sample_too_large",
    "unsafe_name",
    "duplicate_key",
    "non_adjacent_key",
    "compressed_shard",
    "empty_shard",
}


def test_a_cut_anywhere_keeps_the_samples_before_it(tmp_path: Path) -> None:
    (path,) = write(tmp_path, numbered(4))
    data = path.read_bytes()
    sample_bytes = (len(data) - 2 * BLOCK) // 4
    for cut in range(0, len(data) - 2 * BLOCK, 97):
        path.write_bytes(data[:cut])
        keys, drops = read(path)
        before = cut // sample_bytes
        assert len(keys) >= before - 1
        assert keys == [f"k{i:03d}" for i in range(len(keys))]
        assert all(reason in ("truncated_shard", "empty_shard") for _, reason in drops)
