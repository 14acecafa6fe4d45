"""Rows of tensors in safetensors files, a chunk of rows to a file, each read by its own bytes.

Rows may have different shapes. A reader fetches a file's header once, remembers where its rows
begin, and then reads only the rows it is asked for, so that nothing has to be downloaded and little
is kept in memory.
"""

# R rows, P parts of a row

import json
import threading
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from math import prod
from typing import Any

import numpy as np
import torch
from pydantic import PositiveInt, TypeAdapter, ValidationError
from safetensors.torch import save

from i2l_model.errors import InputError
from jobs import storage

_LENGTH_BYTES = 8  # a safetensors file starts with its header's length, little endian
_MARKER = "rows.json"
_NOT_READ = -1
_FIX = "delete the file and run the same command again"
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "U8": torch.uint8,
}

_Kind = tuple[torch.dtype, tuple[int, ...]]
"""Dtype and shape of a tensor."""


@dataclass(frozen=True, slots=True)
class _Tensor:
    """Where a tensor lies in its file, in bytes, and what it is."""

    start: int
    end: int
    dtype: torch.dtype
    shape: tuple[int, ...]


def chunk_uri(folder_uri: str, chunk: int) -> str:
    """The file of a chunk."""
    return storage.join_uri(folder_uri, f"{chunk:06d}.safetensors")


def write_chunk(folder_uri: str, chunk: int, tensors: Mapping[str, torch.Tensor]) -> int:
    """Write the rows of a chunk, by name; return the size of the file in bytes."""
    data = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
    storage.write_bytes(chunk_uri(folder_uri, chunk), data)
    return len(data)


def chunk_rows(chunk: int, rows_per_chunk: int, num_rows: int) -> range:
    """The rows of a chunk, of ``num_rows`` in all."""
    first = chunk * rows_per_chunk
    return range(first, min(first + rows_per_chunk, num_rows))


def chunk_size(uri: str, names: Iterable[str]) -> int:
    """Bytes of a chunk's file.

    Args:
        uri: The file.
        names: The tensors that it has to hold, and no others.

    Raises:
        InputError: If the file is missing, cut off or holds other tensors.
    """
    size = storage.file_size(uri)
    tensors = _read_header(uri, size)
    if tensors.keys() != set(names) or max(tensor.end for tensor in tensors.values()) != size:
        raise _damaged(uri)
    return size


@dataclass(frozen=True, slots=True)
class RowFiles:
    """What a complete folder of rows holds.

    Attributes:
        num_rows: Rows of all chunks.
        rows_per_chunk: Rows of every chunk but the last.
        num_parts: Tensors of a row.
        sizes: Bytes of each chunk.
    """

    num_rows: PositiveInt
    rows_per_chunk: PositiveInt
    num_parts: PositiveInt
    sizes: list[PositiveInt]

    def write(self, folder_uri: str) -> None:
        """Mark the folder as complete."""
        data = (json.dumps(asdict(self)) + "\n").encode()
        storage.write_bytes(_marker_uri(folder_uri), data)


def complete_rows(folder_uri: str) -> RowFiles | None:
    """What a folder holds, if it is complete and every chunk has its size; else None."""
    rows = _marked(folder_uri)
    if rows is None:
        return None
    found = {uri.rpartition("/")[2]: uri for uri in storage.list_files(folder_uri, ".safetensors")}
    for chunk, size in enumerate(rows.sizes):
        uri = found.get(chunk_uri(folder_uri, chunk).rpartition("/")[2])
        if uri is None or storage.file_size(uri) != size:
            return None
    return rows


class RowReader:
    """Reads rows of a complete folder; safe among threads.

    A row costs one read once another row of its file was read. What is remembered of it are 12
    bytes a tensor.

    Args:
        folder_uri: The folder.

    Raises:
        InputError: If it is not complete.
    """

    def __init__(self, folder_uri: str) -> None:
        files = _marked(folder_uri)
        if files is None:
            marker, fix = _marker_uri(folder_uri), "run the same command again"
            raise InputError("cache", marker, "is missing or damaged", fix)
        self.files = files
        self._folder_uri = folder_uri
        self._starts_RP = np.full((files.num_rows, files.num_parts), _NOT_READ, dtype=np.int64)
        self._kinds_RP = np.zeros((files.num_rows, files.num_parts), dtype=np.int32)
        self._kinds: list[_Kind] = []
        self._numbers: dict[_Kind, int] = {}  # of the kinds
        self._noting = threading.Lock()

    def read(self, row: int, part: int = 0) -> torch.Tensor:
        """Return one tensor of a row.

        Raises:
            InputError: If the file is missing, cut off or lacks the row.
        """
        chunk = row // self.files.rows_per_chunk
        uri = chunk_uri(self._folder_uri, chunk)
        if row not in range(self.files.num_rows):
            raise InputError("cache", uri, f"has no row {row}", _FIX)
        if self._starts_RP[row, part] == _NOT_READ:
            self._note(uri, chunk)
        dtype, shape = self._kinds[self._kinds_RP[row, part]]
        size = prod(shape) * dtype.itemsize
        data = bytearray(storage.read_range(uri, int(self._starts_RP[row, part]), size))
        return torch.frombuffer(data, dtype=dtype).view(shape)

    def _note(self, uri: str, chunk: int) -> None:
        """Remember where the rows of a chunk begin, and their shapes and dtypes."""
        tensors = _read_header(uri, self.files.sizes[chunk])
        for row in chunk_rows(chunk, self.files.rows_per_chunk, self.files.num_rows):
            for part in range(self.files.num_parts):
                tensor = tensors.get(row_name(row, part))
                if tensor is None:
                    raise InputError("cache", uri, f"has no row {row}", _FIX)
                self._kinds_RP[row, part] = self._number((tensor.dtype, tensor.shape))
                self._starts_RP[row, part] = tensor.start  # last: it says that the kind is known

    def _number(self, kind: _Kind) -> int:
        with self._noting:
            if kind not in self._numbers:
                self._numbers[kind] = len(self._kinds)
                self._kinds.append(kind)
            return self._numbers[kind]


def row_name(row: int, part: int = 0) -> str:
    """Name of a row's tensor in its file."""
    return f"{row}.{part}"


def _read_header(uri: str, size: int) -> dict[str, _Tensor]:
    """The tensors of a chunk by name.

    Args:
        uri: The file.
        size: Its bytes.

    Raises:
        InputError: If there is no such file, or it is damaged.
    """
    length = int.from_bytes(storage.read_range(uri, 0, _LENGTH_BYTES), "little")
    data = _LENGTH_BYTES + length
    if data > size:
        raise _damaged(uri)
    text = storage.read_range(uri, _LENGTH_BYTES, length)
    try:
        header: dict[str, Any] = json.loads(text)
        return {name: _described(entry, data) for name, entry in header.items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise _damaged(uri) from error


def _described(entry: dict[str, Any], data: int) -> _Tensor:
    """What a header says of a tensor, in a file whose data begin at a byte."""
    first, last = entry["data_offsets"]
    return _Tensor(data + first, data + last, _DTYPES[entry["dtype"]], tuple(entry["shape"]))


def _damaged(uri: str) -> InputError:
    return InputError("cache", uri, "is damaged", _FIX)


def _marker_uri(folder_uri: str) -> str:
    return storage.join_uri(folder_uri, _MARKER)


def _marked(folder_uri: str) -> RowFiles | None:
    """What a folder's marker says; None where there is none, or none that makes sense."""
    marker = _marker_uri(folder_uri)
    if not storage.exists(marker):
        return None
    try:
        rows = TypeAdapter(RowFiles).validate_json(storage.read_bytes(marker))
    except ValidationError:
        return None
    num_chunks = -(-rows.num_rows // rows.rows_per_chunk)
    return rows if len(rows.sizes) == num_chunks else None
