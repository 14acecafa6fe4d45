"""The object storage that Ray Train keeps its records on: through ``jobs.storage``, and patient.

Ray Train writes a record at every checkpoint and deletes old checkpoints. With a filesystem of its
own it would end the training if the server does not answer in that moment.
"""

import io
import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.fs

from i2l_model.errors import InputError
from jobs import storage
from jobs.away import ServerAway
from jobs.training.patience import Patience

logger = logging.getLogger(__name__)


def ray_filesystem(patience_s: float) -> pyarrow.fs.FileSystem:
    """S3 as a pyarrow filesystem, with paths ``bucket/key``.

    Args:
        patience_s: How long to wait for a server that is away, in seconds.
    """
    return pyarrow.fs.PyFileSystem(_S3Handler(Patience(patience_s, logger.warning)))


class _S3Handler(pyarrow.fs.FileSystemHandler):  # type: ignore[misc]  # pyarrow has no types
    """Small files and the deletion of folders, which is what Ray Train asks for."""

    def __init__(self, patience: Patience) -> None:
        self.patience = patience

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _S3Handler) and other.patience == self.patience

    def __hash__(self) -> int:
        return hash(self.patience)

    def get_type_name(self) -> str:
        return "i2l-s3"

    def normalize_path(self, path: str) -> str:
        return path

    def get_file_info(self, paths: list[str]) -> list[pyarrow.fs.FileInfo]:
        return [self.patience(partial(_file_info, path), f"asking for {path}") for path in paths]

    def create_dir(self, path: str, recursive: bool) -> None:
        """Object storage has no folders to create."""

    def delete_dir(self, path: str) -> None:
        self.patience(partial(storage.delete, _uri(path)), f"deleting {path}")

    def delete_file(self, path: str) -> None:
        self.delete_dir(path)

    def open_input_stream(self, path: str) -> Any:
        read = partial(storage.read_bytes, _uri(path))
        return pa.BufferReader(self.patience(read, f"reading {path}"))

    def open_output_stream(self, path: str, metadata: Any) -> Any:
        return pa.PythonFile(_Upload(partial(self._write, path)), mode="w")

    def _write(self, path: str, data: bytes) -> None:
        self.patience(partial(storage.write_bytes, _uri(path), data), f"writing {path}")

    def _refused(self, *_: Any) -> Any:
        raise NotImplementedError("Ray Train is expected to do without")

    get_file_info_selector = _refused
    delete_dir_contents = delete_root_dir_contents = _refused
    move = copy_file = open_input_file = open_append_stream = _refused


class _Upload(io.BytesIO):
    """Collects bytes and hands them on when it is closed; what is never closed is dropped."""

    def __init__(self, write: Callable[[bytes], None]) -> None:
        super().__init__()
        self._hand_on = write

    def close(self) -> None:
        if self.closed:
            return
        data = self.getvalue()
        super().close()  # first, so that bytes that could not be written are not tried again
        self._hand_on(data)

    def __del__(self) -> None:
        """Do without the close that io does here: its writer did not come to the end."""


def _uri(path: str) -> str:
    return f"s3://{path}"


def _file_info(path: str) -> pyarrow.fs.FileInfo:
    kinds = pyarrow.fs.FileType
    try:
        return pyarrow.fs.FileInfo(path, kinds.File, size=storage.file_size(_uri(path)))
    except ServerAway:
        raise
    except InputError:
        kind = kinds.Directory if storage.exists(_uri(path)) else kinds.NotFound
        return pyarrow.fs.FileInfo(path, kind)
