"""Which shards an input means."""

from pathlib import Path

import pytest

from i2l_model.errors import InputError
from jobs.shards import ShardWriter, has_shards, list_shards, remove_shards


def write(folder: Path, samples: dict[str, dict[str, bytes]], **options: int) -> list[Path]:
    with ShardWriter(str(folder), "s", **options) as writer:
        for key, members in samples.items():
            writer.write(key, members)
    return [Path(info.uri) for info in writer.shards]


def numbered(count: int, size: int = 700) -> dict[str, dict[str, bytes]]:
    return {f"k{i:03d}": {"png": bytes([i]) * size, "txt": b"text"} for i in range(count)}


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


NAMES = (
    "a/x-0.tar",
    "a/x-1.tar",
    "a/x-10.tar",
    "a/deep/y.tar",
    "b/x-0.tar",
    "b/[odd].tar",
    "c{1}.tar",
)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("a/x-*.tar", (0, 1, 2)),
        ("a/x-?.tar", (0, 1)),
        ("*/x-0.tar", (0, 4)),
        ("a", (0, 1, 2, 3)),
        ("[ab]", (0, 1, 2, 3, 4, 5)),
        ("[!a]/*", (4, 5)),
        ("**/y.tar", (3,)),
        ("a/**", (0, 1, 2, 3)),
        ("{a,b}/x-{0..0}.tar", (0, 4)),
        ("a/{x-{0,1},deep/y}.tar", (0, 1, 3)),
        ("{a/x-{1..0},b/x-0}.tar", (0, 1, 4)),
        ("{a/deep,b}", (3, 4, 5)),
        ("b/[odd].tar", (5,)),
        ("c{1}.tar", (6,)),
        ("{a,a}/x-[01].tar", (0, 1)),
    ],
)
def test_patterns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pattern: str, expected: tuple[int, ...]
) -> None:
    root = tmp_path / "with [brackets]"
    for name in (*NAMES, "a/other.txt", "a/.x-9.tar"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    monkeypatch.chdir(root)
    assert list_shards(pattern) == sorted(str(root / NAMES[i]) for i in expected)


@pytest.mark.parametrize(
    "pattern", ["x-*.tar", "{s-00000,t}.tar", "s-{0..9999999}.tar", "s-{1,{2}.tar", "none/{a,b}"]
)
def test_patterns_without_a_match_are_input_errors(tmp_path: Path, pattern: str) -> None:
    write(tmp_path, numbered(1))
    with pytest.raises(InputError):
        list_shards(f"{tmp_path}/{pattern}")
