"""The ledger comes back as it was, and says so when it cannot."""

import logging
from pathlib import Path

import numpy as np
import pytest

from i2l_model.errors import InputError
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
