import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from i2l_model.errors import InputError
from i2l_model.weights import read_weights, write_weights

TENSORS = {"b.weight": torch.arange(6.0).view(2, 3).T, "a": torch.ones(3, dtype=torch.bfloat16)}
METADATA = {f"key{i}": f"wert ä{i}" for i in range(12)}


def test_roundtrip_keeps_tensors_and_metadata(tmp_path: Path):
    write_weights(TENSORS, tmp_path / "sub/w.safetensors", METADATA)
    tensors, metadata = read_weights(tmp_path / "sub/w.safetensors", field="weights")
    assert metadata == METADATA
    assert tensors.keys() == TENSORS.keys()
    assert all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS)


def test_equal_content_gives_equal_bytes(tmp_path: Path):
    for number in range(4):
        write_weights(
            dict(sorted(TENSORS.items(), reverse=number % 2 == 1)),
            tmp_path / f"{number}.safetensors",
            dict(sorted(METADATA.items(), reverse=number % 2 == 1)),
        )
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1
    with safe_open(str(tmp_path / "0.safetensors"), framework="pt") as file:
        assert file.metadata() == METADATA


def test_data_stays_aligned(tmp_path: Path):
    write_weights(TENSORS, tmp_path / "w.safetensors", {"x": "1"})
    data = (tmp_path / "w.safetensors").read_bytes()
    length = int.from_bytes(data[:8], "little")
    assert length % 8 == 0
    json.loads(data[8 : 8 + length])


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path, monkeypatch):
    path = tmp_path / "w.safetensors"
    write_weights(TENSORS, path)
    before = path.read_bytes()

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_weights({"c": torch.ones(1)}, path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["w.safetensors"]
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"not safetensors", b"\xff" * 64])
def test_damaged_file_is_the_users_error(tmp_path: Path, content: bytes):
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"weights \(.*w.safetensors\) is no readable safetensors"):
        read_weights(path, field="weights")


def test_missing_file_is_the_users_error(tmp_path: Path):
    with pytest.raises(InputError, match="does not exist"):
        read_weights(tmp_path / "w.safetensors", field="weights")
