from pathlib import Path

import pytest
import torch

from i2l_model.errors import InputError
from jobs.training.row_files import RowFiles, RowReader, complete_rows, row_name, write_chunk


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


def test_a_row_that_is_not_there_is_named(tmp_path: Path) -> None:
    write(tmp_path)
    with pytest.raises(InputError, match="has no row 5"):
        RowReader(str(tmp_path)).read(5)


def test_a_folder_without_marker_is_refused(tmp_path: Path) -> None:
    write_chunk(str(tmp_path), 0, {row_name(0): torch.zeros(1)})
    with pytest.raises(InputError, match="is not complete"):
        RowReader(str(tmp_path))
