"""Listing pictures: order, keys that stay apart, links and odd entries, changes that show."""

import os
from pathlib import Path

import pytest

from jobs.corpus.picture_files import (
    UNUSABLE,
    Item,
    LeftOut,
    PictureFile,
    state_digest,
    walk_pictures,
)


def walk(root: Path, *, follow_links: bool = False) -> list[Item]:
    return list(walk_pictures(str(root), follow_links=follow_links))


def keys(root: Path) -> dict[str, str]:
    return {item.name: item.key for item in walk(root) if isinstance(item, PictureFile)}


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode(errors="surrogateescape"))


def test_names_are_sorted_as_paths_and_hidden_ones_left_out(tmp_path: Path) -> None:
    touch(tmp_path, "b.png", "a/z.jpg", "a.JPG", "a-1/x.webp", ".git/c.png", "._a.jpg", "n.txt")
    names = [item.name for item in walk(tmp_path)]
    assert names == ["a-1/x.webp", "a.JPG", "a/z.jpg", "b.png"] == sorted(names)


def test_keys_that_would_collide_get_numbers(tmp_path: Path) -> None:
    touch(tmp_path, "a b.jpg", "a.b.jpg", "a_b.png", "a_b_2.png", "a_b.webp", "...jpg", "-.png")
    found = keys(tmp_path)
    assert len(set(found.values())) == len(found)
    assert found["a b.jpg"] == "a_b"
    assert not any("." in key for key in found.values())


def test_keys_of_like_folders_stay_apart(tmp_path: Path) -> None:
    touch(tmp_path, "a:b/x.png", "a%3Ab/x.png", "a\\b/x.png", "v1.0 (new)/x.png", "\udcfc/x.png")
    found = keys(tmp_path)
    assert len(set(found.values())) == 5
    assert found["v1.0 (new)/x.png"] == "v1.0 (new)/x"
    assert not any(character in key for key in found.values() for character in ":\\\udcfc")


def test_many_equal_keys_are_numbered_in_one_pass(tmp_path: Path) -> None:
    stems = [f"{'.' * (n % 50 + 1)}{' ' * (n // 50)}" for n in range(2000)]
    touch(tmp_path, *(f"x{stem}x.png" for stem in stems))
    assert len(set(keys(tmp_path).values())) == 2000


def test_links_are_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    touch(outside, "secret.png", "secret.txt")
    root = tmp_path / "root"
    touch(root, "own.png", "sub/own.png")
    (root / "file.png").symlink_to(outside / "secret.png")
    (root / "folder").symlink_to(outside)
    (root / "loop").symlink_to(root)
    (root / "self.png").symlink_to(root / "self.png")
    (root / "own.txt").symlink_to(outside / "secret.txt")
    assert [item for item in walk(root) if isinstance(item, LeftOut)] == [
        LeftOut("file.png", "link"),
        LeftOut("folder/", "link"),
        LeftOut("loop/", "link"),
        LeftOut("self.png", "link"),
    ]
    (own,) = (item for item in walk(root) if item.name == "own.png")
    assert isinstance(own, PictureFile)
    assert own.sidecars[0] is not None
    assert own.sidecars[0].size == UNUSABLE
    followed = {item.name: item for item in walk(root, follow_links=True)}
    assert isinstance(followed["file.png"], PictureFile)
    assert followed["folder/"] == LeftOut("folder/", "link")
    assert followed["self.png"] == LeftOut("self.png", "unreadable")


def test_deep_and_long_paths_are_no_trouble(tmp_path: Path) -> None:
    here, name = os.open(tmp_path, os.O_RDONLY), "d" * 250
    for _ in range(20):  # longer than a path may be
        os.mkdir(name, dir_fd=here)
        deeper = os.open(name, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = deeper
    os.close(here)
    touch(
        tmp_path, "ok.png", f"{'%' * 250}/x.png", "n" * 251 + ".png", *["e" * 200 + "/" + "x.png"]
    )
    long = "/".join(["%" * 250] * 6)
    touch(tmp_path, f"{long}/x.png")
    items = {item.name: item for item in walk(tmp_path)}
    assert LeftOut(f"{long}/x.png", "name_too_long") in items.values()
    assert isinstance(items["n" * 251 + ".png"], PictureFile)
    assert [i.reason for i in items.values() if i.name.startswith("ddd")] == ["unreadable"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_folders_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    touch(tmp_path, "closed/x.png")
    (tmp_path / "closed").chmod(0)
    assert walk(tmp_path) == [LeftOut("closed/", "unreadable")]
    (tmp_path / "closed").chmod(0o700)


def test_the_digest_sees_every_change(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "b.png")
    seen = {state_digest(walk(tmp_path))}
    (tmp_path / "a.txt").write_text("a")
    seen.add(state_digest(walk(tmp_path)))
    os.utime(tmp_path / "b.png", ns=(1, 1))
    seen.add(state_digest(walk(tmp_path)))
    (tmp_path / "b.png").rename(tmp_path / "c.png")
    seen.add(state_digest(walk(tmp_path)))
    touch(tmp_path, "unrelated.doc")
    seen.add(state_digest(walk(tmp_path)))
    assert len(seen) == 4
