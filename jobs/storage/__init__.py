"""The one place that opens URIs: a path, ``file://`` or ``s3://``.

Writes appear whole under their final name or not at all. S3 takes endpoint, region, credentials
and retries from the usual AWS variables, see ``jobs.storage.s3_client``. What the user can change
is an ``InputError``, a server that keeps failing a ``StorageError``; both are one line.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, BinaryIO

from i2l_model.atomic import open_atomic
from i2l_model.errors import InputError
from jobs.storage import local, s3, s3_stream
from jobs.storage.s3_errors import StorageError
from jobs.storage.uris import absolute_uri, is_inside, is_s3, join_uri, local_path

__all__ = [
    "StorageError",
    "absolute_uri",
    "is_inside",
    "is_s3",
    "join_uri",
    "local_path",
    "exists",
    "file_size",
    "list_files",
    "read_bytes",
    "read_range",
    "open_read",
    "write_bytes",
    "open_write",
    "delete",
    "delete_unfinished",
    "copy_file",
    "download_folder",
    "upload_folder",
]

_COPY_BYTES = 1 << 20


def exists(uri: str | Path) -> bool:
    """Whether a file, or a folder with something in it, is there."""
    return s3.exists(uri) if is_s3(uri) else local_path(uri).exists()


def file_size(uri: str | Path) -> int:
    """Size in bytes.

    Raises:
        InputError: If there is no such file.
    """
    return s3.file_size(uri) if is_s3(uri) else local.file_size(uri)


def list_files(uri: str | Path, suffix: str = "", *, name_prefix: str = "") -> list[str]:
    """Sorted URIs of all files below a folder whose name ends with ``suffix``.

    Hidden files, under which unfinished writes live, are left out.

    Args:
        uri: The folder.
        suffix: End of the names.
        name_prefix: Start of the paths below the folder; spares listing the rest of it.

    Raises:
        InputError: If the folder or the bucket does not exist.
    """
    if is_s3(uri):
        return s3.list_files(uri, suffix, name_prefix)
    return local.list_files(uri, suffix, name_prefix)


def read_bytes(uri: str | Path) -> bytes:
    """The whole file.

    Raises:
        InputError: If there is no such file.
    """
    with open_read(uri) as stream:
        return stream.read()


def read_range(uri: str | Path, offset: int, size: int) -> bytes:
    """``size`` bytes of a file from ``offset`` on.

    Raises:
        InputError: If there is no such file, or it ends before.
    """
    read = s3_stream.read_range if is_s3(uri) else local.read_range
    data = read(uri, offset, size)
    if len(data) != size:
        problem = f"ends before byte {offset + size}"
        raise InputError("uri", uri, problem, "restore the file that it was")
    return data


@contextmanager
def open_read(uri: str | Path) -> Iterator[BinaryIO]:
    """A buffered binary stream over a file; on S3 the bytes are streamed, not downloaded first.

    A stream from S3 that breaks goes on where it broke.

    Raises:
        InputError: If there is no such file, or it is replaced while it is read.
    """
    reader = s3.open_read(uri) if is_s3(uri) else local.open_read(uri)
    with reader as stream:
        yield stream


def write_bytes(uri: str | Path, data: bytes) -> None:
    """Write a file whole: readers see the old bytes or the new ones."""
    with open_write(uri) as stream:
        stream.write(data)


@contextmanager
def open_write(uri: str | Path) -> Iterator[IO[bytes]]:
    """A binary stream whose bytes appear under ``uri`` when the block ends without an error.

    Raises:
        InputError: If nothing can be written there.
    """
    writer = s3.open_write(uri) if is_s3(uri) else open_atomic(local_path(uri), field="uri")
    with writer as stream:
        yield stream


def delete(uri: str | Path) -> None:
    """Remove a file, or a folder with everything below it; nothing there is fine."""
    if is_s3(uri):
        s3.delete(uri)
    else:
        local.delete(uri)


def delete_unfinished(uri: str | Path) -> None:
    """Remove what killed writes left below a folder that nobody else writes to.

    Nothing is seen of them in S3; a lifecycle rule of the bucket ends uploads that were begun.
    """
    if not is_s3(uri):
        local.delete_unfinished(uri)


def copy_file(source: str | Path, target: str | Path) -> None:
    """Copy one file; it appears whole under ``target`` or not at all.

    Raises:
        InputError: If there is no such file, or ``target`` cannot be written.
    """
    with open_read(source) as stream, open_write(target) as sink:
        shutil.copyfileobj(stream, sink, _COPY_BYTES)


def download_folder(uri: str | Path, target: str | Path) -> Path:
    """Copy everything below ``uri`` into the local folder ``target`` and return it.

    Raises:
        InputError: If there is no such folder, it is empty, or a name in it is no file name.
    """
    target = Path(target)
    root = absolute_uri(uri)
    names = list_files(root)
    if not names:
        raise InputError("uri", uri, "holds no files", "check the URI")
    for name in names:
        relative = name.removeprefix(root).removeprefix("/")
        if {"", ".", ".."} & set(relative.split("/")):
            raise InputError("uri", name, "is no file name below its folder", "rename the object")
        copy_file(name, target / relative)
    return target


def upload_folder(folder: str | Path, uri: str | Path) -> None:
    """Copy everything below the local ``folder`` to ``uri``, in sorted order.

    Raises:
        InputError: If ``folder`` is not an existing folder.
    """
    root = local_path(folder).absolute()
    for name in list_files(root):
        relative = Path(name).relative_to(root).as_posix()
        copy_file(name, join_uri(uri, relative))
