import json
from pathlib import Path

import numpy as np

from i2l_model.images import encode_jpeg
from jobs import storage
from jobs.shards import ShardWriter
from jobs.training.pair_index import NO_REF, PairIndex
from tests.pair_shards import CONTENTS, draw, pair_record
from tests.training_inputs import make_index


def test_distinct_images_are_counted_once(index: PairIndex) -> None:
    assert index.num_pairs == 24
    # 4 pairs a style, contents rotated: all six appear as references, four as targets.
    assert len(index.refs) == 6 * 6
    assert len(index.targets) == 6 * 4
    assert set(index.targets.widths_U) == set(index.targets.heights_U) == {64}


def test_rows_lead_to_the_right_bytes(index: PairIndex) -> None:
    style = index.styles.index("style03")
    pair = index.style_pairs[style][1]  # its contents are rotated by one
    target = index.pair_targets_P[pair]
    content = np.roll(CONTENTS, 1)[3]
    places = index.targets
    shard = index.shards[places.shards_U[target]]
    data = storage.read_range(shard, int(places.offsets_U[target]), int(places.sizes_U[target]))
    assert data == encode_jpeg(draw(3, content))
    assert index.prompt(target) == f"a {content}"


def test_targets_that_show_a_reference_content_are_not_allowed(index: PairIndex) -> None:
    for style in range(len(index.styles)):
        for pair in index.style_pairs[style]:
            allowed = index.allowed_targets(style, pair, np.arange(3))
            assert index.pair_targets_P[pair] in allowed
            assert not set(index.target_heads_U[allowed]) & set(index.pair_ref_heads_PF[pair])


def test_a_target_with_a_reference_key_is_not_allowed(tmp_path: Path) -> None:
    records = [pair_record("train", 0, ("circle", "square"), n) for n in range(2)]
    records[1] |= {"target_key": "style00/circle", "target_head": "another word for it"}
    index = _index(tmp_path, records)
    allowed = index.allowed_targets(0, 0, np.arange(1))
    assert [index.target_keys_U[row] for row in allowed] == [index.target_keys_U[0]]


def test_two_shards_with_the_same_keys_mix_no_pictures(tmp_path: Path) -> None:
    records = [pair_record("train", style, ("circle", "square"), 0) for style in (0, 1)]
    for record in records:
        record |= {"ref_keys": ["000"], "target_key": "001"}
    for style, record in enumerate(records):
        _write_shard(tmp_path, [record], style)
    index = make_index(tmp_path, "train", tmp_path / "index.parquet")
    assert index.styles == ["style00", "style01"]
    assert len(index.refs) == len(index.targets) == 2
    assert index.pair_targets_P.tolist() == [0, 1]
    assert len(index.target_prompts_U) == len(index.target_heads_U) == 2
    assert index.prompts == ["a square"]


def test_pairs_may_have_different_numbers_of_references(tmp_path: Path) -> None:
    records = [
        pair_record("train", 0, ("circle", "square"), 0),
        pair_record("train", 0, ("bar", "ring", "cross", "square"), 1),
    ]
    index = _index(tmp_path, records)
    assert (index.pair_refs_PF != NO_REF).sum(axis=1).tolist() == [1, 3]


def test_a_pair_that_cannot_be_used_is_left_out_by_name(tmp_path: Path) -> None:
    records = [pair_record("train", 0, ("circle", "square"), n) for n in range(4)]
    with ShardWriter(str(tmp_path / "shards" / "train"), "pairs") as writer:
        for number, record in enumerate(records):
            members = _members(record, 0)
            if number == 1:
                members["ref_0.jpg"] = members["ref_0.jpg"][:300]
            if number == 2:
                members["json"] = b"{"
            if number == 3:
                del members["target.jpg"]
            writer.write(record["pair_id"], members)
    dropped: list[str] = []
    index = make_index(tmp_path, "train", tmp_path / "index.parquet", dropped)
    assert index.num_pairs == 1
    assert [line.split(" ")[0] for line in dropped] == [record["pair_id"] for record in records[1:]]
    assert "corrupt_image" in dropped[0]
    assert "JSONDecodeError" in dropped[1]
    assert "target.jpg" in dropped[2]


def _members(record: dict, style: int) -> dict[str, bytes]:
    refs = {
        f"ref_{i}.jpg": encode_jpeg(draw(style, head)) for i, head in enumerate(record["ref_heads"])
    }
    target = encode_jpeg(draw(style, "square"))
    return refs | {"target.jpg": target, "json": json.dumps(record).encode()}


def _write_shard(folder: Path, records: list[dict], style: int = 0) -> None:
    with ShardWriter(str(folder / "shards" / "train"), f"pairs{style}") as writer:
        for record in records:
            writer.write(record["pair_id"], _members(record, style))


def _index(folder: Path, records: list[dict]) -> PairIndex:
    _write_shard(folder, records)
    return make_index(folder, "train", folder / "index.parquet")
