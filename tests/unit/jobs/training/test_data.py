import json
from pathlib import Path

import numpy as np
import pytest
import torch

from i2l_model.errors import InputError
from i2l_model.images import encode_jpeg
from jobs.shards import ShardWriter
from jobs.training.data import NO_REF, PairStore, load_pairs
from tests.pair_shards import CONTENTS, draw, pair_record, write_pairs


def test_distinct_images_are_stored_once(store: PairStore) -> None:
    assert store.num_pairs == 24
    # 4 pairs a style, contents rotated: all six appear as references, four as targets.
    assert len(store.refs_U3SS) == 6 * 6
    assert len(store.targets_U3SS) == 6 * 4
    assert store.refs_U3SS.dtype == torch.uint8
    assert store.refs_U3SS.shape[1:] == (3, 32, 32)
    assert store.targets_U3SS.shape[1:] == (3, 64, 64)


def test_rows_lead_to_the_right_pixels(store: PairStore) -> None:
    style = store.styles.index("style03")
    pair = store.style_pairs[style][1]  # its contents are rotated by one
    target = store.targets_U3SS[store.pair_targets_P[pair]]
    content = np.roll(CONTENTS, 1)[3]
    expected = np.asarray(draw(3, content)).transpose(2, 0, 1)
    assert np.abs(target.numpy().astype(int) - expected).mean() < 6
    assert store.prompts[store.pair_targets_P[pair]] == f"a {content}"


def test_targets_that_show_a_reference_content_are_not_allowed(store: PairStore) -> None:
    for style in range(len(store.styles)):
        for pair in store.style_pairs[style]:
            columns = np.arange(3)
            allowed = store.allowed_targets(style, pair, columns)
            assert store.pair_targets_P[pair] in allowed
            assert not set(store.target_heads_U[allowed]) & set(store.pair_ref_heads_PF[pair])


def test_a_target_with_a_reference_key_is_not_allowed(tmp_path: Path) -> None:
    records = [pair_record("train", 0, ("circle", "square"), n) for n in range(2)]
    records[1] |= {"target_key": "style00/circle", "target_head": "another word for it"}
    store = _store(tmp_path, records)
    allowed = store.allowed_targets(0, 0, np.arange(1))
    assert [store.target_keys_U[row] for row in allowed] == [store.target_keys_U[0]]


def test_two_shards_with_the_same_keys_mix_no_pictures(tmp_path: Path) -> None:
    records = [pair_record("train", style, ("circle", "square"), 0) for style in (0, 1)]
    for record in records:
        record |= {"ref_keys": ["000"], "target_key": "001"}
    for style, record in enumerate(records):
        _write_shard(tmp_path, [record], style)
    store = load_pairs(str(tmp_path), "train", ref_size=32, target_size=32)
    assert store.styles == ["style00", "style01"]
    for images in (store.refs_U3SS, store.targets_U3SS):
        assert len(images) == 2
        assert not torch.equal(images[0], images[1])
    assert store.pair_targets_P.tolist() == [0, 1]
    assert len(store.prompts) == len(store.target_heads_U) == 2


def test_pairs_may_have_different_numbers_of_references(tmp_path: Path) -> None:
    records = [
        pair_record("train", 0, ("circle", "square"), 0),
        pair_record("train", 0, ("bar", "ring", "cross", "square"), 1),
    ]
    store = _store(tmp_path, records)
    assert (store.pair_refs_PF != NO_REF).sum(axis=1).tolist() == [1, 3]


def test_a_missing_split_is_an_input_error(tmp_path: Path) -> None:
    folder = write_pairs(tmp_path, val_styles=0)
    with pytest.raises(InputError, match="has no val shards"):
        load_pairs(str(folder), "val", ref_size=32, target_size=64)


def _write_shard(folder: Path, records: list[dict], style: int = 0) -> None:
    with ShardWriter(str(folder / "shards" / "train"), f"pairs{style}") as writer:
        for record in records:
            members = {
                f"ref_{i}.jpg": encode_jpeg(draw(style, head))
                for i, head in enumerate(record["ref_heads"])
            }
            members["target.jpg"] = encode_jpeg(draw(style, "square"))
            members["json"] = json.dumps(record).encode()
            writer.write(record["pair_id"], members)


def _store(folder: Path, records: list[dict]) -> PairStore:
    _write_shard(folder, records)
    return load_pairs(str(folder), "train", ref_size=32, target_size=32)
