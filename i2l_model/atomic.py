"""Files that appear whole or not at all."""

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from i2l_model.errors import InputError

_SUFFIX = ".tmp"
PARTIAL_PATTERN = f".*{_SUFFIX}"
"""Names of files whose writer was killed."""


@contextmanager
def open_atomic(path: Path, *, field: str = "output") -> Iterator[IO[bytes]]:
    """A binary stream whose bytes appear at ``path`` when the block ends without an error.

    Errors while writing pass unchanged.

    Args:
        path: The file; its folder is made where it is missing.
        field: What the user named the file for.

    Raises:
        InputError: If nothing can be written there.
    """
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(
            prefix=f".{path.name}.", suffix=_SUFFIX, dir=path.parent
        )
    except OSError as error:
        problem = f"cannot be written: {error.strerror}"
        raise InputError(field, path, problem, "give a place you can write to") from error
    partial = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())  # a marker written later must not outlive these bytes
        partial.chmod(0o644)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
