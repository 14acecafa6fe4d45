"""A folder of pictures as shards: captions from where they are, drops by reason, equal bytes."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from i2l_model.errors import InputError
from jobs.corpus.pack import PackConfig, caption_of_name, run_pack
from jobs.progress import NullProgress
from jobs.shards import read_shard


def picture(path: Path, seed: int = 0, side: int = 40) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "pictures"
    picture(root / "with text.png").with_suffix(".txt").write_text("a fox\n in snow")
    picture(root / "sub" / "a.jpg", 1).with_suffix(".json").write_text(
        json.dumps({"caption": "a boat", "licence": "CC0-1.0"})
    )
    picture(root / "red_house-02.webp", 2)
    picture(root / "red_house-02.png", 3)
    return root


def pack(folder: Path, output: Path, **settings: object):
    result = run_pack(PackConfig(**settings), folder, str(output), NullProgress())
    samples = [s for shard in result.shards for s in read_shard(shard.uri)]
    return result, {s.key: s.members for s in samples}


def test_captions_come_from_text_json_or_name(folder: Path, tmp_path: Path) -> None:
    result, samples = pack(folder, tmp_path / "out")
    captions = {key: members["txt"].decode() for key, members in samples.items()}
    assert captions == {
        "red_house-02": "red house",
        "red_house-02_2": "red house",
        "sub/a": "a boat",
        "with_text": "a fox in snow",
    }
    assert result.num_images == 4
    assert result.drops == {}
    meta = json.loads(samples["sub/a"]["json"])
    assert meta == {"caption": "a boat", "licence": "CC0-1.0", "file_name": "sub/a.jpg"}


def test_known_formats_stay_and_others_become_png(folder: Path, tmp_path: Path) -> None:
    _, samples = pack(folder, tmp_path / "out")
    assert samples["sub/a"]["jpg"] == (folder / "sub" / "a.jpg").read_bytes()
    assert samples["red_house-02_2"]["png"].startswith(b"\x89PNG")


def test_packing_twice_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    first, _ = pack(folder, tmp_path / "a")
    second, _ = pack(folder, tmp_path / "b")
    again, _ = pack(folder, tmp_path / "a")
    hashes = [[shard.sha256 for shard in r.shards] for r in (first, second, again)]
    assert hashes[0] == hashes[1] == hashes[2]


def test_unusable_pictures_are_counted_by_reason(folder: Path, tmp_path: Path) -> None:
    (folder / "broken.png").write_bytes(b"no png")
    picture(folder / "tiny.png", side=8)
    picture(folder / "IMG_0001.png", 5)
    picture(folder / "sidecar.png", 6).with_suffix(".json").write_text("[1, 2")
    picture(folder / "latin.png", 7).with_suffix(".txt").write_bytes("für".encode("latin-1"))
    result, samples = pack(folder, tmp_path / "out")
    assert result.drops == {
        "bad_sidecar": 2,
        "corrupt_image": 1,
        "no_caption": 1,
        "too_small": 1,
    }
    assert result.examples["corrupt_image"] == ["broken.png"]
    assert len(samples) == 4
    manifest = json.loads((tmp_path / "out" / "pack.json").read_text())
    assert manifest["drops"] == result.drops


def test_names_are_left_alone_when_asked(folder: Path, tmp_path: Path) -> None:
    result, _ = pack(folder, tmp_path / "out", caption_from_name=False)
    assert result.drops == {"no_caption": 2}


def test_bad_folders_are_input_errors(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not an existing folder"):
        pack(tmp_path / "none", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no pictures"):
        pack(tmp_path / "empty", tmp_path / "out")
    (tmp_path / "empty" / "x.png").write_bytes(b"x")
    with pytest.raises(InputError, match="corrupt_image 1"):
        pack(tmp_path / "empty", tmp_path / "out")


def test_text_that_is_no_unicode_is_mended(folder: Path, tmp_path: Path) -> None:
    half = r'{"caption": "a dog \ud83d", "by": ["\udc36"]}'
    picture(folder / "dog.png", 5).with_suffix(".json").write_text(half)
    for number, letter in enumerate("\udcfc\udcf6"):  # Latin-1 names: grün, grön
        picture(folder / f"gr{letter}n fox.png", 6 + number)
    (folder / "br\udcf6ken.png").write_bytes(b"no png")
    result, samples = pack(folder, tmp_path / "out")
    assert samples["dog"]["txt"].decode() == "a dog \ufffd"
    assert json.loads(samples["dog"]["json"])["by"] == ["\ufffd"]
    assert {"gr\ufffdn_fox", "gr\ufffdn_fox_2"} <= set(samples)
    assert json.loads(samples["gr\ufffdn_fox"]["json"])["file_name"] == "gr\ufffdn fox.png"
    assert result.examples == {"corrupt_image": ["br\ufffdken.png"]}
    assert pack(folder, tmp_path / "out")[0].num_images == 7


def test_packing_again_replaces_the_shards_and_nothing_else(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    noise = [picture(folder / f"noise {n} cloud.png", n, side=640) for n in range(2)]
    assert pack(folder, output, shard_mib=1)[0].num_shards > 1
    others = [output / "notes.txt", output / "deeper" / "pack-00000.tar"]
    for path in others:
        path.parent.mkdir(exist_ok=True)
        path.touch()
    for path in noise:
        path.unlink()
    result, _ = pack(folder, output)
    assert {path for path in output.rglob("*") if path.is_file()} == {
        *others,
        output / "pack.json",
        output / "pack-00000.tar",
    }
    assert result.num_images == 4


def test_shards_stay_when_nothing_usable_is_left(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    pack(folder, output)
    before = {path.name: path.read_bytes() for path in output.iterdir()}
    for path in folder.rglob("*.*"):
        path.write_bytes(b"no picture")
    with pytest.raises(InputError, match="no usable picture"):
        pack(folder, output)
    assert {path.name: path.read_bytes() for path in output.iterdir()} == before


def test_shards_of_another_folder_are_not_replaced(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out"
    pack(folder, output)
    monkeypatch.chdir(tmp_path)
    assert pack(Path(folder.name), output)[0].num_images == 4
    picture(tmp_path / "others" / "a fox.png")
    with pytest.raises(InputError, match="holds the pictures of") as caught:
        pack(tmp_path / "others", output)
    assert caught.value.field == "output"
    (output / "pack.json").write_text("[]")
    with pytest.raises(InputError, match=r"pack\.json"):
        pack(folder, output)


@pytest.mark.parametrize(
    ("stem", "caption"),
    [("RedFox_02", "red fox"), ("IMG_1234", ""), ("a", ""), ("ein-großer Baum", "ein großer baum")],
)
def test_captions_of_names(stem: str, caption: str) -> None:
    assert caption_of_name(stem) == caption
