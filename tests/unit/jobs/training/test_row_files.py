import sys
from pathlib import Path

import pytest
import torch

from i2l_model.errors import InputError
from jobs import storage
from jobs.training.row_files import (
    RowFiles,
    RowReader,
    chunk_size,
    chunk_uri,
    complete_rows,
    row_name,
    write_chunk,
)


def write(folder: Path, num_rows: int = 5, rows_per_chunk: int = 2) -> list[torch.Tensor]:
    rows = [torch.randn(row + 1, 3).bfloat16() for row in range(num_rows)]
    sizes = []
    for chunk in range(-(-num_rows // rows_per_chunk)):
        members = range(chunk * rows_per_chunk, min(num_rows, (chunk + 1) * rows_per_chunk))
        sizes.append(write_chunk(str(folder), chunk, {row_name(r): rows[r] for r in members}))
    RowFiles(num_rows, rows_per_chunk, 1, sizes).write(str(folder))
    return rows


def test_every_row_comes_back_in_its_shape_and_dtype(tmp_path: Path) -> None:
    rows = write(tmp_path)
    reader = RowReader(str(tmp_path))
    for row in (4, 0, 3, 1, 2, 0):
        assert torch.equal(reader.read(row), rows[row])


def test_a_folder_is_complete_once_it_is_marked(tmp_path: Path) -> None:
    assert complete_rows(str(tmp_path)) is None
    write(tmp_path)
    files = complete_rows(str(tmp_path))
    assert files is not None
    assert files.num_rows == 5


@pytest.mark.parametrize("damage", ["cut", "gone", "marker"])
def test_a_folder_with_a_damaged_file_is_not_complete(tmp_path: Path, damage: str) -> None:
    write(tmp_path)
    chunk = tmp_path / "000001.safetensors"
    if damage == "cut":
        chunk.write_bytes(chunk.read_bytes()[:-1])
    elif damage == "gone":
        chunk.unlink()
    else:
        (tmp_path / "rows.json").write_text("{")
    assert complete_rows(str(tmp_path)) is None


def test_a_chunk_tells_its_size_while_it_is_whole(tmp_path: Path) -> None:
    names = [row_name(0), row_name(1)]
    size = write_chunk(str(tmp_path), 0, {name: torch.zeros(2, 3) for name in names})
    uri = chunk_uri(str(tmp_path), 0)
    assert chunk_size(uri, names) == size
    with pytest.raises(InputError, match=r"000000\.safetensors\) is damaged; delete the file"):
        chunk_size(uri, names[:1])
    whole = Path(uri).read_bytes()
    for damaged in (whole[:-1], whole[:20], b"", whole + b"0", b"\xff" * size, b"{" * size):
        Path(uri).write_bytes(damaged)
        with pytest.raises(InputError, match=r"000000\.safetensors"):
            chunk_size(uri, names)


def test_a_row_costs_one_read_once_its_file_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = write(tmp_path, num_rows=600, rows_per_chunk=2)  # of 300 files
    reader = RowReader(str(tmp_path))
    for row in range(0, 600, 2):
        reader.read(row)
    reads = []
    read_range = storage.read_range

    def counted(uri: str, offset: int, size: int) -> bytes:
        reads.append(uri)
        return read_range(uri, offset, size)

    monkeypatch.setattr(storage, "read_range", counted)
    for row in (1, 599, 0, 311):
        assert torch.equal(reader.read(row), rows[row])
    assert len(reads) == 4


def test_a_million_rows_are_remembered_in_little_memory(tmp_path: Path) -> None:
    RowFiles(10**6, 32, 1, [1000] * 31_250).write(str(tmp_path))
    kept = vars(RowReader(str(tmp_path))).values()
    assert sum(sys.getsizeof(part) for part in kept) < 20 << 20


def test_a_row_that_is_not_there_is_named(tmp_path: Path) -> None:
    write(tmp_path)
    for row in (5, 6, -1):
        with pytest.raises(InputError, match=f"has no row {row}"):
            RowReader(str(tmp_path)).read(row)


@pytest.mark.parametrize(
    "marker", [None, "", "{", "[]", "{}", '{"num_rows": "many"}', "short", "no rows"]
)
def test_a_folder_without_a_good_marker_is_refused(tmp_path: Path, marker: str | None) -> None:
    size = write_chunk(str(tmp_path), 0, {row_name(0): torch.zeros(1)})
    if marker == "short":
        RowFiles(3, 1, 1, [size]).write(str(tmp_path))
    elif marker == "no rows":
        RowFiles(1, 0, 1, [size]).write(str(tmp_path))
    elif marker is not None:
        (tmp_path / "rows.json").write_text(marker)
    assert complete_rows(str(tmp_path)) is None
    with pytest.raises(InputError, match=r"rows\.json\) is missing or damaged.*run the same"):
        RowReader(str(tmp_path))
