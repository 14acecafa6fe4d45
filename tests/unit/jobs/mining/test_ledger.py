"""The ledger comes back as it was, and says so when it cannot."""

import logging
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from i2l_model.errors import InputError
from jobs import storage
from jobs.mining.config import SplitConfig
from jobs.mining.ledger import Ledger

CONFIG = SplitConfig()
SHA = np.array([[5, 0], [0, 0], [2**64 - 1, 1], [5, 2**63], [7, 7]], np.uint64)


def two_styles() -> Ledger:
    members = {"b": np.array([0, 2]), "a": np.array([3, 1]), "no pairs": np.array([4])}
    return Ledger.empty(CONFIG).extended(members, {"a": "val", "b": "train"}, SHA)


def test_it_comes_back_as_it_was(tmp_path: Path) -> None:
    two_styles().save(str(tmp_path))
    ledger = Ledger.load(str(tmp_path), CONFIG)
    entry = ledger.find(SHA)
    assert (entry >= 0).tolist() == [True, True, True, True, False]
    named = [ledger.style_ids[ledger.style[e]] for e in entry[:4]]
    assert named == ["b", "a", "b", "a"]
    assert ledger.split[entry[:4]].tolist() == [0, 1, 0, 1]
    data = (tmp_path / "ledger.parquet").read_bytes()
    ledger.extended({}, {}, SHA).save(str(tmp_path))
    assert (tmp_path / "ledger.parquet").read_bytes() == data


def test_entries_never_change() -> None:
    ledger = two_styles().extended({"c": np.array([0, 4])}, {"c": "test"}, SHA)
    entry = ledger.find(SHA)
    assert [ledger.style_ids[ledger.style[e]] for e in entry] == ["b", "a", "b", "a", "c"]
    assert ledger.split[entry].tolist() == [0, 1, 0, 1, 2]


def test_other_split_settings_begin_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    two_styles().save(str(tmp_path))
    with caplog.at_level(logging.WARNING):
        assert len(Ledger.load(str(tmp_path), SplitConfig(seed=1))) == 0
    assert "mining.split changed" in caplog.text


def test_without_a_file_it_is_empty(tmp_path: Path) -> None:
    ledger = Ledger.load(str(tmp_path), CONFIG)
    assert len(ledger) == 0
    assert (ledger.find(SHA) == -1).all()


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "ledger.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(InputError, match=r"ledger\.parquet.* is no ledger of splits; restore it"):
        Ledger.load(str(tmp_path), CONFIG)


def test_columns_of_another_table_are_refused(tmp_path: Path) -> None:
    two_styles().save(str(tmp_path))
    file = tmp_path / "ledger.parquet"
    table = pq.read_table(file)
    nothing = pa.nulls(len(table), pa.dictionary(pa.int32(), pa.string()))
    for broken in (
        table.drop(["style_id"]),
        table.take([1, 0, 2, 3]),
        table.take([0, 0, 1, 2]),
        table.set_column(1, "style_id", nothing),
        table.set_column(0, "sha256", pa.array([b"short"] * len(table))),
        table.replace_schema_metadata(None),
    ):
        pq.write_table(broken, file)
        with pytest.raises(InputError, match=r"ledger\.parquet.* is no ledger of splits"):
            Ledger.load(str(tmp_path), CONFIG)


def test_no_flipped_byte_changes_what_was_decided(tmp_path: Path) -> None:
    ledger = two_styles()
    ledger.save(str(tmp_path))
    file = tmp_path / "ledger.parquet"
    data = file.read_bytes()
    refused = 0
    for place in range(len(data)):
        file.write_bytes(data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :])
        try:
            read = Ledger.load(str(tmp_path), CONFIG)
        except InputError:
            refused += 1
            continue
        assert read.sha.tolist() == ledger.sha.tolist()
        assert read.split.tolist() == ledger.split.tolist()
        assert [read.style_ids[n] for n in read.style] == ["a", "b", "a", "b"]
    assert refused > len(data) / 2


def test_what_the_storage_refuses_is_told_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two_styles().save(str(tmp_path))

    def refuse(uri: str) -> bytes:
        raise InputError("uri", uri, "refuses access", "check the credentials")

    monkeypatch.setattr(storage, "read_bytes", refuse)
    with pytest.raises(InputError, match="refuses access"):
        Ledger.load(str(tmp_path), CONFIG)


def test_many_row_groups_and_styles_come_back(tmp_path: Path) -> None:
    sha = np.random.default_rng(0).integers(0, 2**63, (60_000, 2)).astype(np.uint64)
    members = {f"s{n:06}": np.array([2 * n, 2 * n + 1]) for n in range(30_000)}
    splits = {name: ("train", "val", "test")[n % 3] for n, name in enumerate(members)}
    ledger = Ledger.empty(CONFIG).extended(members, splits, sha)
    ledger.save(str(tmp_path))
    file = tmp_path / "ledger.parquet"
    data = file.read_bytes()
    table = pq.read_table(file)
    with pq.ParquetWriter(file, table.schema, write_page_checksum=True) as writer:
        for start in range(0, len(table), 7_000):
            writer.write_table(table.slice(start, 7_000))
    read = Ledger.load(str(tmp_path), CONFIG)
    names = np.array(read.style_ids)[read.style[read.find(sha)]]
    assert names.tolist() == np.repeat(np.array([*members]), 2).tolist()
    read.extended({}, {}, sha).save(str(tmp_path))
    assert file.read_bytes() == data
