"""A folder of pictures as shards: captions from where they are, drops by reason, equal bytes."""

import hashlib
import json
import os
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from i2l_model.errors import InputError
from jobs import storage
from jobs.corpus.pack import _parts, run_pack
from jobs.corpus.picture_files import LeftOut
from jobs.corpus.picture_sample import PackConfig
from jobs.progress import NullProgress
from jobs.shards import read_shard
from tests.s3_servers import S3Server


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
    config = PackConfig(**{"num_workers": 1, **settings})
    result = run_pack(config, folder, str(output), NullProgress())
    samples = [s for shard in result.shards for s in read_shard(f"{output}/{shard.name}")]
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
    stored = samples["sub/a"]["jpg"]
    assert json.loads(samples["sub/a"]["json"]) == {
        "caption": "a boat",
        "licence": "CC0-1.0",
        "file_name": "sub/a.jpg",
        "width": 40,
        "height": 40,
        "sha256": hashlib.sha256(stored).hexdigest(),
    }


def test_known_formats_stay_and_others_become_png(folder: Path, tmp_path: Path) -> None:
    picture(folder / "flat.bmp", 4)
    _, samples = pack(folder, tmp_path / "out")
    assert samples["sub/a"]["jpg"] == (folder / "sub" / "a.jpg").read_bytes()
    assert samples["red_house-02_2"]["webp"] == (folder / "red_house-02.webp").read_bytes()
    assert samples["flat"]["png"].startswith(b"\x89PNG")


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
        output / "run.json",
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


def tree(folder: Path, without: str = "run.json") -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != without)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.fixture
def noisy_folder(folder: Path) -> Path:
    """Enough for several shards of 1 MiB, some pictures unusable."""
    for number in range(5):
        picture(folder / "noise" / f"cloud {number}.png", number, side=640)
    (folder / "noise" / "cloud 1.jpg").write_bytes(b"no jpeg")
    return folder


class Interrupted(NullProgress):
    """Interrupts the job after its first shard."""

    def update(self, stage: str, done: int, total: int | None = None, note: str = "") -> None:
        if stage == "pack":
            raise KeyboardInterrupt


def test_the_number_of_workers_changes_no_byte(noisy_folder: Path, tmp_path: Path) -> None:
    for number in (1, 2, 3):
        result, _ = pack(noisy_folder, tmp_path / str(number), shard_mib=1, num_workers=number)
        assert (result.num_images, result.drops) == (9, {"corrupt_image": 1})
    assert len(tree(tmp_path / "1")) > 3
    assert tree(tmp_path / "1") == tree(tmp_path / "2") == tree(tmp_path / "3")


def test_a_pack_that_was_killed_goes_on(noisy_folder: Path, tmp_path: Path) -> None:
    config = PackConfig(shard_mib=1, num_workers=1)
    with pytest.raises(KeyboardInterrupt):
        run_pack(config, noisy_folder, str(tmp_path / "out"), Interrupted())
    assert not (tmp_path / "out" / "pack.json").exists()
    first = tmp_path / "out" / "pack-00000.tar"
    written = first.stat().st_ino
    pack(noisy_folder, tmp_path / "out", shard_mib=1)
    pack(noisy_folder, tmp_path / "whole", shard_mib=1)
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")
    assert first.stat().st_ino == written


def test_a_killed_repack_leaves_no_old_marker(noisy_folder: Path, tmp_path: Path) -> None:
    pack(noisy_folder, tmp_path / "out", shard_mib=1)
    picture(noisy_folder / "a new one.png", 9)
    config = PackConfig(shard_mib=1, num_workers=1)
    with pytest.raises(KeyboardInterrupt):
        run_pack(config, noisy_folder, str(tmp_path / "out"), Interrupted())
    assert not (tmp_path / "out" / "pack.json").exists()
    result, _ = pack(noisy_folder, tmp_path / "out", shard_mib=1)
    assert (result.num_images, result.reused) == (10, False)


def test_a_finished_pack_is_left_alone(folder: Path, tmp_path: Path) -> None:
    first, _ = pack(folder, tmp_path / "out")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    again, _ = pack(folder, tmp_path / "out", num_workers=2)
    assert (first.reused, again.reused) == (False, True)
    assert again.shards == first.shards
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()} == before
    (tmp_path / "out" / "pack-00000.tar").unlink()
    assert not pack(folder, tmp_path / "out")[0].reused
    assert not pack(folder, tmp_path / "out", min_side=33)[0].reused
    (folder / "with text.txt").write_text("a wolf")
    changed, samples = pack(folder, tmp_path / "out", min_side=33)
    assert not changed.reused
    assert samples["with_text"]["txt"] == b"a wolf"


def test_places_do_not_show_in_the_manifest(folder: Path, tmp_path: Path) -> None:
    pack(folder, tmp_path / "a")
    moved = tmp_path / "moved"
    shutil.copytree(folder, moved, copy_function=shutil.copyfile)
    pack(moved, tmp_path / "b")
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    assert str(folder) in (tmp_path / "a" / "run.json").read_text()


def test_first_folders_are_sources_when_asked(folder: Path, tmp_path: Path) -> None:
    _, plain = pack(folder, tmp_path / "a")
    _, named = pack(folder, tmp_path / "b", source_from_folder=True)
    assert "source" not in json.loads(plain["sub/a"]["json"])
    assert json.loads(named["sub/a"]["json"])["source"] == "sub"
    assert "source" not in json.loads(named["with_text"]["json"])


def test_drops_by_the_walk_and_by_the_picture_are_counted_alike(
    folder: Path, tmp_path: Path
) -> None:
    (folder / "link fox.png").symlink_to(folder / "with text.png")
    os.mkfifo(folder / "pipe.png")
    bomb = picture(folder / "bomb.png", 5)
    data = bytearray(bomb.read_bytes())
    data[16:24] = struct.pack(">II", 20_000, 10_000)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    bomb.write_bytes(data)
    picture(folder / "huge text.png", 6).with_suffix(".txt").write_text("a " * (1 << 20))
    picture(folder / "nan.png", 6).with_suffix(".json").write_text('{"score": NaN}')
    frames = [Image.new("RGB", (40, 40), colour) for colour in ("red", "blue")]
    frames[0].save(folder / "moving.gif", save_all=True, append_images=frames[1:])
    result, samples = pack(folder, tmp_path / "out")
    assert result.drops == {
        "animated": 1,
        "bad_sidecar": 2,
        "link": 1,
        "not_a_file": 1,
        "too_many_pixels": 1,
    }
    assert result.examples["link"] == ["link fox.png"]
    assert len(samples) == 4


def test_packs_to_s3_as_to_a_folder(
    noisy_folder: Path, tmp_path: Path, s3_server: S3Server
) -> None:
    uri = f"{s3_server.new_bucket()}/packed"
    config = PackConfig(shard_mib=1, num_workers=2)
    with pytest.raises(KeyboardInterrupt):
        run_pack(config, noisy_folder, uri, Interrupted())
    run_pack(config, noisy_folder, uri, NullProgress())
    assert run_pack(config, noisy_folder, uri, NullProgress()).reused
    pack(noisy_folder, tmp_path / "out", shard_mib=1)
    storage.download_folder(uri, tmp_path / "copy")
    assert tree(tmp_path / "copy") == tree(tmp_path / "out")
    assert not storage.exists(f"{uri}/.pack")


def test_a_full_list_of_parts_is_cut_by_size() -> None:
    items = [LeftOut("x/", "link")] * 1000
    assert [len(part) for part in _parts(items, PackConfig(shard_mib=1))] == [256, 256, 256, 232]
