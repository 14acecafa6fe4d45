"""Every sample becomes one row with one reason."""

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from i2l_model.errors import InputError
from jobs.mining.config import IngestConfig
from jobs.mining.ingest import END, IngestStage, pixels_of
from jobs.shards import ShardWriter


def png(width: int = 48, height: int = 48, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (200, 30, 30)).save(buffer, kind, **options)
    return buffer.getvalue()


def ingest(path: Path, **settings: object) -> list[dict[str, object]]:
    stage = IngestStage(IngestConfig(**settings), input_px=64)
    return pa.concat_tables(stage({"shard": [str(path)]})).to_pylist()


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    frames = [Image.new("RGB", (48, 48), (0, 9, 0))]
    samples = {
        "good": {"png": png(), "txt": b"a  red\nsquare", "json": b'{"licence": "CC0-1.0"}'},
        "from_json": {"jpeg": png(kind="JPEG"), "json": json.dumps({"caption": "a box"}).encode()},
        "broken": {"png": b"nothing", "txt": b"x"},
        "no_text": {"png": png()},
        "no_picture": {"txt": b"x"},
        "small": {"png": png(20, 48), "txt": b"x"},
        "strip": {"png": png(200, 50), "txt": b"x"},
        "moving": {"gif": png(kind="GIF", save_all=True, append_images=frames), "txt": b"x"},
        "large": {"png": png(600, 300), "txt": b"x"},
    }
    with ShardWriter(str(tmp_path), "s") as writer:
        for key, members in samples.items():
            writer.write(key, members)
    return tmp_path / "s-00000.tar"


def test_reasons(shard: Path) -> None:
    rows = ingest(shard, max_pixels=100_000)
    assert {row["key"]: row["reason"] for row in rows[:-1]} == {
        "good": "",
        "from_json": "",
        "broken": "corrupt_image",
        "no_text": "no_caption",
        "no_picture": "no_image",
        "small": "too_small",
        "strip": "extreme_aspect",
        "moving": "animated",
        "large": "too_many_pixels",
    }
    assert (rows[-1]["reason"], rows[-1]["position"]) == (END, 9)
    assert [row["position"] for row in rows] == list(range(10))


def test_kept_rows_carry_what_encoders_need(shard: Path) -> None:
    rows = {row["key"]: row for row in ingest(shard)}
    assert rows["good"]["caption"] == "a red square"
    assert rows["from_json"]["caption"] == "a box"
    assert json.loads(str(rows["good"]["meta"])) == {"licence": "CC0-1.0"}
    assert pixels_of(rows["good"]).shape == (48, 48, 3)
    assert pixels_of(rows["large"]).shape == (64, 128, 3)
    assert (rows["large"]["width"], rows["large"]["height"]) == (600, 300)


def test_half_an_emoji_does_not_stop_the_job(tmp_path: Path) -> None:
    with ShardWriter(str(tmp_path), "s") as writer:
        writer.write("dog", {"png": png(), "json": rb'{"caption": "a dog \ud83d"}'})
    row = ingest(tmp_path / "s-00000.tar")[0]
    assert row["caption"] == "a dog \ufffd"
    pa.array([row["caption"], row["key"], row["meta"]], pa.string())


def test_captions_can_be_optional(shard: Path) -> None:
    rows = {row["key"]: row for row in ingest(shard, caption_required=False)}
    assert rows["no_text"]["reason"] == ""


def test_truncated_shard_keeps_what_came_before(shard: Path) -> None:
    data = shard.read_bytes()
    shard.write_bytes(data[: data.index(b"from_json.json") + 520])
    rows = ingest(shard)
    assert [(row["key"], row["reason"]) for row in rows] == [
        ("good", ""),
        ("from_json", "truncated_shard"),
        ("", END),
    ]


def test_missing_shard_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        ingest(tmp_path / "none.tar")


def test_pixels_are_those_of_the_image(shard: Path) -> None:
    row = ingest(shard)[0]
    assert (pixels_of(row) == np.array([200, 30, 30])).all()
