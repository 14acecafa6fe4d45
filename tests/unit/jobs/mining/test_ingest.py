"""Every sample becomes one row with one reason."""

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from i2l_model.errors import InputError
from jobs.mining.config import MiningConfig
from jobs.mining.feature_plan import CHUNK_ROWS, plan_features
from jobs.mining.ingest import END, IngestStage, ShardError
from jobs.shards import ShardWriter


def png(width: int = 48, height: int = 48, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (200, 30, 30)).save(buffer, kind, **options)
    return buffer.getvalue()


def ingest(path: Path, *, part: int = 0, num_parts: int = 1, **settings: object) -> list[dict]:
    plan = plan_features(MiningConfig(ingest=settings))
    shard = {"shard": [0], "uri": [str(path)], "part": [part], "num_parts": [num_parts]}
    return pa.concat_tables(IngestStage(plan)(shard)).to_pylist()


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
    assert len(rows["good"]["thumbnail"]) == 8 * 8 * 3
    style = np.frombuffer(rows["good"]["style"], dtype=np.float16).astype(np.float32)
    assert np.linalg.norm(style) == pytest.approx(1, abs=1e-2)
    assert rows["good"]["content"]
    assert rows["good"]["licence"] == "CC0-1.0"
    assert rows["broken"]["style"] == rows["broken"]["thumbnail"] == b""
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


def test_parts_of_a_shard_are_its_rows_to_the_bit(tmp_path: Path) -> None:
    with ShardWriter(str(tmp_path), "s") as writer:
        for number in range(2 * CHUNK_ROWS + 5):
            picture = png(48 + number % 7, 48) if number % 5 else b"broken"
            writer.write(f"{number:04d}", {"png": picture, "txt": f"a box {number}".encode()})
    path = tmp_path / "s-00000.tar"
    whole = ingest(path)
    parts = [row for part in range(2) for row in ingest(path, part=part, num_parts=2)]
    ends = [row for row in parts if row["reason"] == END]
    assert [end["position"] for end in ends] == [len(whole) - 1] * 2
    rows = [row for row in parts if row["reason"] != END]
    assert sorted(rows, key=lambda row: row["position"]) == whole[:-1]


def test_members_of_other_kinds_are_counted_and_never_opened(tmp_path: Path) -> None:
    with ShardWriter(str(tmp_path), "s") as writer:
        writer.write("a", {"png": png(), "txt": b"a box", "pkl": b"cos\nsystem\n", "pt": b"PK"})
        writer.write("b", {"png": png(), "txt": b"a box", "pkl": b"x"})
    rows = ingest(tmp_path / "s-00000.tar")
    assert [row["reason"] for row in rows] == ["", "", END]
    assert json.loads(rows[-1]["meta"]) == {"pkl": 2, "pt": 1}


def test_a_failure_names_the_shard(shard: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("something odd")

    monkeypatch.setattr("jobs.mining.ingest.read_sample", fail)
    with pytest.raises(ShardError, match=r"s-00000\.tar failed before its first sample.*odd"):
        ingest(shard)
