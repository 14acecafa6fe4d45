"""Files on this machine."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from i2l_model.atomic import PARTIAL_PATTERN
from i2l_model.errors import InputError
from jobs.storage.uris import local_path, missing

READ_BUFFER_BYTES = 1 << 20


def file_size(uri: str | Path) -> int:
    """Size in bytes."""
    return _file(uri).stat().st_size


def list_files(uri: str | Path, suffix: str, name_prefix: str) -> list[str]:
    """Sorted paths of the files below a folder; links to folders are not followed."""
    root = local_path(uri)
    if not root.is_dir():
        raise InputError("uri", uri, "is not an existing folder", "give an existing folder")
    start = os.path.join(root, "")
    found = []
    for folder, _, names in os.walk(root):
        for name in names:
            path = os.path.join(folder, name)
            if name.startswith(".") or not name.endswith(suffix):
                continue
            if path.removeprefix(start).startswith(name_prefix) and os.path.isfile(path):
                found.append(path)
    return sorted(found)


@contextmanager
def open_read(uri: str | Path) -> Iterator[BinaryIO]:
    """A buffered binary stream over a file."""
    with _file(uri).open("rb", buffering=READ_BUFFER_BYTES) as stream:
        yield stream


def read_range(uri: str | Path, offset: int, size: int) -> bytes:
    """Bytes of a file from ``offset`` on; fewer where it ends."""
    with _file(uri).open("rb", buffering=0) as stream:
        return os.pread(stream.fileno(), size, offset)


def delete(uri: str | Path) -> None:
    """Remove a file, or a folder with everything below it; nothing there is fine."""
    path = local_path(uri)
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def delete_unfinished(uri: str | Path) -> None:
    """Remove what killed writes left below a folder."""
    for path in local_path(uri).rglob(PARTIAL_PATTERN):
        path.unlink(missing_ok=True)


def _file(uri: str | Path) -> Path:
    path = local_path(uri)
    if not path.is_file():
        raise missing(uri)
    return path
