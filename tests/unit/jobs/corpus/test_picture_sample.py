"""One picture as a sample: what changed or is not allowed is left out, with its reason."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jobs.corpus.picture_files import PictureFile, walk_pictures
from jobs.corpus.picture_sample import LeftOutError, PackConfig, caption_of_name, read_sample


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "a fox.png"
    pixels = np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    path.with_suffix(".txt").write_text("a fox in snow")
    return path


def listed(picture: Path, *, follow_links: bool = False) -> PictureFile:
    (item,) = walk_pictures(str(picture.parent), follow_links=follow_links)
    assert isinstance(item, PictureFile)
    return item


def reason_of(picture: Path, item: PictureFile) -> str:
    with pytest.raises(LeftOutError) as caught:
        read_sample(str(picture.parent), item, PackConfig())
    return str(caught.value)


def test_a_file_that_vanished_is_left_out(picture: Path) -> None:
    item = listed(picture)
    picture.unlink()
    assert reason_of(picture, item) == "changed"


@pytest.mark.parametrize("suffix", [".png", ".txt"])
def test_a_file_that_was_written_to_is_left_out(picture: Path, suffix: str) -> None:
    item = listed(picture)
    changed = picture.with_suffix(suffix)
    changed.write_bytes(changed.read_bytes() + b"!")
    assert reason_of(picture, item) == "changed"


def test_a_file_that_became_a_link_or_a_pipe_is_left_out(picture: Path) -> None:
    item = listed(picture)
    moved = picture.rename(picture.with_suffix(".moved"))
    picture.symlink_to(moved)
    assert reason_of(picture, item) == "unreadable"
    picture.unlink()
    os.mkfifo(picture)
    assert reason_of(picture, item) == "changed"


def test_a_linked_sidecar_is_not_read(picture: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("password")
    picture.with_suffix(".txt").unlink()
    picture.with_suffix(".txt").symlink_to(secret)
    assert reason_of(picture, listed(picture)) == "bad_sidecar"
    item = listed(picture, follow_links=True)
    sample = read_sample(str(tmp_path), item, PackConfig(follow_links=True))
    assert sample["txt"] == b"password"


@pytest.mark.parametrize(
    "text", ["[1]", "{", '{"a": NaN}', "[" * 100_000, '{"n": ' + "1" * 5000 + "}"]
)
def test_json_that_is_no_plain_object_is_left_out(picture: Path, text: str) -> None:
    picture.with_suffix(".json").write_text(text)
    assert reason_of(picture, listed(picture)) == "bad_sidecar"


@pytest.mark.parametrize(
    ("stem", "caption"),
    [("RedFox_02", "red fox"), ("IMG_1234", ""), ("a", ""), ("ein-großer Baum", "ein großer baum")],
)
def test_captions_of_names(stem: str, caption: str) -> None:
    assert caption_of_name(stem) == caption
