"""What a URI names: a path, ``file://`` or ``s3://``."""

import os
from pathlib import Path
from urllib.parse import unquote

from i2l_model.errors import InputError

_FILE_SCHEME, _S3_SCHEME = "file://", "s3://"


def is_s3(uri: str | Path) -> bool:
    """Whether ``uri`` names an S3 object or prefix."""
    return str(uri).startswith(_S3_SCHEME)


def local_path(uri: str | Path) -> Path:
    """The path behind a local URI.

    Raises:
        InputError: If the URI is not local, or has a scheme nobody handles.
    """
    text = str(uri)
    if not text:
        raise InputError("uri", text, "is empty", "give a path, file:// or s3:// URI")
    if text.startswith(_FILE_SCHEME):
        host, _, path = text.removeprefix(_FILE_SCHEME).partition("/")
        if host not in ("", "localhost"):
            raise InputError("uri", text, f"names the host {host}", "write file:///PATH")
        return Path(unquote(f"/{path}"))
    if "://" in text:
        problem = "is not a local path" if is_s3(text) else "has an unknown scheme"
        raise InputError("uri", text, problem, "give a path or a file:// URI")
    return Path(text).expanduser()


def absolute_uri(uri: str | Path) -> str:
    """The same place, independent of the working directory; local URIs become plain paths."""
    return str(uri).rstrip("/") if is_s3(uri) else str(local_path(uri).absolute())


def join_uri(base: str | Path, *parts: str) -> str:
    """Append path components to a URI."""
    head = str(base).rstrip("/") if str(base).strip("/") else str(base)
    return os.path.join(head, *(part.strip("/") for part in parts))


def is_inside(uri: str | Path, folder: str | Path) -> bool:
    """Whether ``uri`` is ``folder`` or lies below it, whatever links and ".." the paths hold."""
    if is_s3(uri) or is_s3(folder):
        return f"{absolute_uri(uri)}/".startswith(f"{absolute_uri(folder)}/")
    return local_path(uri).resolve().is_relative_to(local_path(folder).resolve())


def split_s3(uri: str | Path) -> tuple[str, str]:
    """Bucket and key; the key is "" for a whole bucket.

    Raises:
        InputError: If the URI names no bucket.
    """
    bucket, _, key = str(uri).removeprefix(_S3_SCHEME).partition("/")
    if not bucket:
        raise InputError("uri", uri, "names no bucket", "write s3://BUCKET/PATH")
    return bucket, key


def missing(uri: str | Path) -> InputError:
    """The error for a file that is not there."""
    return InputError("uri", uri, "does not exist", "check the URI")
