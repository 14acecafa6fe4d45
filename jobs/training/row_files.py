"""Rows of tensors in safetensors files, a chunk of rows to a file, each read by its own bytes.

Rows may have different shapes. A reader fetches a file's header once and then only the rows it is
asked for, so that nothing has to be downloaded or kept in memory.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import torch
from safetensors.torch import save

from i2l_model.errors import InputError
from jobs import storage

_LENGTH_BYTES = 8  # a safetensors file starts with its header's length, little endian
_MARKER = "rows.json"
_HEADERS = 256  # kept in memory
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "U8": torch.uint8,
}


def chunk_uri(folder_uri: str, chunk: int) -> str:
    """The file of a chunk."""
    return storage.join_uri(folder_uri, f"{chunk:06d}.safetensors")


def write_chunk(folder_uri: str, chunk: int, tensors: Mapping[str, torch.Tensor]) -> int:
    """Write the rows of a chunk, by name; return the size of the file in bytes."""
    data = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
    storage.write_bytes(chunk_uri(folder_uri, chunk), data)
    return len(data)


@dataclass(frozen=True, slots=True)
class RowFiles:
    """What a complete folder of rows holds.

    Attributes:
        num_rows: Rows of all chunks.
        rows_per_chunk: Rows of every chunk but the last.
        num_parts: Tensors of a row.
        sizes: Bytes of each chunk.
    """

    num_rows: int
    rows_per_chunk: int
    num_parts: int
    sizes: list[int]

    def write(self, folder_uri: str) -> None:
        """Mark the folder as complete."""
        data = (json.dumps(asdict(self)) + "\n").encode()
        storage.write_bytes(storage.join_uri(folder_uri, _MARKER), data)


def complete_rows(folder_uri: str) -> RowFiles | None:
    """What a folder holds, if it is complete and every chunk has its size; else None."""
    marker = storage.join_uri(folder_uri, _MARKER)
    if not storage.exists(marker):
        return None
    try:
        rows = RowFiles(**json.loads(storage.read_bytes(marker)))
    except (ValueError, TypeError):
        return None
    found = {uri.rpartition("/")[2]: uri for uri in storage.list_files(folder_uri, ".safetensors")}
    for chunk, size in enumerate(rows.sizes):
        uri = found.get(chunk_uri(folder_uri, chunk).rpartition("/")[2])
        if uri is None or storage.file_size(uri) != size:
            return None
    return rows


class RowReader:
    """Reads rows of a complete folder; safe among threads.

    Args:
        folder_uri: The folder.

    Raises:
        InputError: If it is not complete.
    """

    def __init__(self, folder_uri: str) -> None:
        marker = storage.join_uri(folder_uri, _MARKER)
        if not storage.exists(marker):
            raise InputError("cache", folder_uri, "is not complete", "run the same command again")
        self.files = RowFiles(**json.loads(storage.read_bytes(marker)))
        self._folder_uri = folder_uri
        self._header = lru_cache(_HEADERS)(self._read_header)

    def read(self, row: int, part: int = 0) -> torch.Tensor:
        """Return one tensor of a row.

        Raises:
            InputError: If the file is missing, cut off or lacks the row.
        """
        chunk = row // self.files.rows_per_chunk
        uri = chunk_uri(self._folder_uri, chunk)
        start, header = self._header(chunk)
        entry = header.get(row_name(row, part))
        if entry is None:
            raise InputError("cache", uri, f"has no row {row}", "delete the folder")
        first, last = entry["data_offsets"]
        data = bytearray(storage.read_range(uri, start + first, last - first))
        tensor = torch.frombuffer(data, dtype=_DTYPES[entry["dtype"]])
        return tensor.view(entry["shape"])

    def _read_header(self, chunk: int) -> tuple[int, dict[str, Any]]:
        """Where the data of a chunk start, and what the header says of each tensor."""
        uri = chunk_uri(self._folder_uri, chunk)
        length = int.from_bytes(storage.read_range(uri, 0, _LENGTH_BYTES), "little")
        try:
            header: dict[str, Any] = json.loads(storage.read_range(uri, _LENGTH_BYTES, length))
        except ValueError as error:
            raise InputError("cache", uri, "is damaged", "delete the folder") from error
        return _LENGTH_BYTES + length, header


def row_name(row: int, part: int = 0) -> str:
    """Name of a row's tensor in its file."""
    return f"{row}.{part}"
