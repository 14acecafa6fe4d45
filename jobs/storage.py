"""The one module that opens URIs: a path, ``file://`` or ``s3://``.

S3 goes through boto3 and reads the usual variables: ``AWS_ENDPOINT_URL``, credentials, region and,
for servers that refuse checksum trailers, ``AWS_REQUEST_CHECKSUM_CALCULATION=when_required`` with
``AWS_RESPONSE_CHECKSUM_VALIDATION=when_required``. Writes appear whole under their final name.
"""

import functools
import io
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, BinaryIO
from urllib.parse import unquote, urlsplit

import boto3
import botocore.client
import botocore.config
import botocore.exceptions

from i2l_model.atomic import open_atomic
from i2l_model.errors import InputError

_COPY_BYTES = 1 << 20
_S3_FIX = "check the URI, AWS_ENDPOINT_URL and the AWS credentials"
_CHECKSUM_FIX = (
    "if the server is no AWS S3, set AWS_REQUEST_CHECKSUM_CALCULATION=when_required and "
    "AWS_RESPONSE_CHECKSUM_VALIDATION=when_required"
)


def is_s3(uri: str | Path) -> bool:
    """Whether ``uri`` names an S3 object or prefix."""
    return str(uri).startswith("s3://")


def local_path(uri: str | Path) -> Path:
    """The path behind a local URI.

    Raises:
        InputError: If the URI is not local, or has a scheme nobody handles.
    """
    text = str(uri)
    if not text:
        raise InputError("uri", text, "is empty", "give a path, file:// or s3:// URI")
    if text.startswith("file://"):
        return Path(unquote(urlsplit(text).path))
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


def exists(uri: str | Path) -> bool:
    """Whether a file, or a folder with something in it, is there."""
    if not is_s3(uri):
        return local_path(uri).exists()
    bucket, key = _split_s3(uri)
    with _s3_errors(uri):
        prefix = key.rstrip("/") + "/" if key else ""
        if key and _object_size(bucket, key) is not None:
            return True
        try:
            page = _s3().list_objects_v2(Bucket=bucket, Prefix=prefix, MaxKeys=1)
        except botocore.exceptions.ClientError as error:
            if _code(error) in ("404", "NoSuchBucket"):
                return False
            raise
        return bool(page.get("KeyCount", len(page.get("Contents", []))))


def file_size(uri: str | Path) -> int:
    """Size in bytes.

    Raises:
        InputError: If there is no such file.
    """
    if is_s3(uri):
        with _s3_errors(uri):
            size = _object_size(*_split_s3(uri))
        if size is None:
            raise _missing(uri)
        return size
    path = local_path(uri)
    if not path.is_file():
        raise _missing(uri)
    return path.stat().st_size


def list_files(uri: str | Path, suffix: str = "") -> list[str]:
    """Sorted URIs of all files below a folder whose name ends with ``suffix``.

    Hidden files, under which unfinished writes live, are left out.

    Raises:
        InputError: If the folder or the bucket does not exist.
    """
    if is_s3(uri):
        return _list_s3(uri, suffix)
    root = local_path(uri)
    if not root.is_dir():
        raise InputError("uri", uri, "is not an existing folder", "give an existing folder")
    names = [p for p in root.rglob("*") if p.name.endswith(suffix) and p.is_file()]
    return sorted(str(p) for p in names if not p.name.startswith("."))


def read_bytes(uri: str | Path) -> bytes:
    """The whole file.

    Raises:
        InputError: If there is no such file.
    """
    with open_read(uri) as stream:
        return stream.read()


@contextmanager
def open_read(uri: str | Path) -> Iterator[BinaryIO]:
    """A buffered binary stream over a file; on S3 the bytes are streamed, not downloaded first.

    Raises:
        InputError: If there is no such file.
    """
    if is_s3(uri):
        bucket, key = _split_s3(uri)
        with _s3_errors(uri):
            body = _s3().get_object(Bucket=bucket, Key=key)["Body"]
            with io.BufferedReader(_BodyStream(body), buffer_size=_COPY_BYTES) as stream:
                yield stream
        return
    path = local_path(uri)
    if not path.is_file():
        raise _missing(uri)
    with path.open("rb") as stream:
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
    if is_s3(uri):
        bucket, key = _split_s3(uri)
        with tempfile.TemporaryFile() as stream:
            yield stream
            stream.seek(0)
            with _s3_errors(uri):
                _s3().upload_fileobj(stream, bucket, key)
        return
    with open_atomic(local_path(uri), field="uri") as stream:
        yield stream


def delete(uri: str | Path) -> None:
    """Remove a file, or a folder with everything below it; nothing there is fine."""
    if is_s3(uri):
        bucket, key = _split_s3(uri)
        with _s3_errors(uri):
            _s3().delete_object(Bucket=bucket, Key=key)
            for entry in _list_s3(uri, ""):
                _s3().delete_object(Bucket=bucket, Key=_split_s3(entry)[1])
        return
    path = local_path(uri)
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def download_folder(uri: str | Path, target: str | Path) -> Path:
    """Copy everything below ``uri`` into the local folder ``target`` and return it.

    Raises:
        InputError: If there is no such folder, or it is empty.
    """
    target = Path(target)
    root = absolute_uri(uri)
    names = list_files(root)
    if not names:
        raise InputError("uri", uri, "holds no files", "check the URI")
    for name in names:
        relative = Path(name[len(root) :].lstrip("/"))
        if ".." in relative.parts:
            raise InputError("uri", name, "leaves its folder", "rename the object")
        path = target / relative
        with open_read(name) as source, open_write(path) as sink:
            shutil.copyfileobj(source, sink, _COPY_BYTES)
    return target


def upload_folder(folder: str | Path, uri: str | Path) -> None:
    """Copy everything below the local ``folder`` to ``uri``, in sorted order.

    Raises:
        InputError: If ``folder`` is not an existing folder.
    """
    root = local_path(folder).absolute()
    for name in list_files(root):
        relative = Path(name).relative_to(root).as_posix()
        with open_read(name) as source, open_write(join_uri(uri, relative)) as sink:
            shutil.copyfileobj(source, sink, _COPY_BYTES)


class _BodyStream(io.RawIOBase):
    """Readable raw stream over a botocore response body."""

    def __init__(self, body: Any) -> None:
        self._body = body

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._body.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._body.close()
        super().close()


@functools.cache
def _s3() -> Any:
    """One client a process. Path-style addresses with an own endpoint: any server has those."""
    own_endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    style = "path" if own_endpoint else "auto"
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    config = botocore.config.Config(
        s3={"addressing_style": style}, retries={"max_attempts": 5, "mode": "standard"}
    )
    return boto3.client("s3", config=config, region_name=region)


def _split_s3(uri: str | Path) -> tuple[str, str]:
    bucket, _, key = str(uri).removeprefix("s3://").partition("/")
    if not bucket:
        raise InputError("uri", uri, "names no bucket", "write s3://BUCKET/PATH")
    return bucket, key


def _object_size(bucket: str, key: str) -> int | None:
    try:
        return int(_s3().head_object(Bucket=bucket, Key=key)["ContentLength"])
    except botocore.exceptions.ClientError as error:
        if _code(error) in ("404", "NoSuchKey", "NotFound", "NoSuchBucket"):
            return None
        raise


def _list_s3(uri: str | Path, suffix: str) -> list[str]:
    bucket, key = _split_s3(uri)
    prefix = key.rstrip("/") + "/" if key.strip("/") else ""
    with _s3_errors(uri):
        pages = _s3().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        keys = [entry["Key"] for page in pages for entry in page.get("Contents", [])]
    keys = [k for k in keys if k.endswith(suffix) and not k.endswith("/")]
    return sorted(f"s3://{bucket}/{k}" for k in keys if not k.rsplit("/", 1)[-1].startswith("."))


def _code(error: botocore.exceptions.ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _missing(uri: str | Path) -> InputError:
    return InputError("uri", uri, "does not exist", "check the URI")


@contextmanager
def _s3_errors(uri: str | Path) -> Iterator[None]:
    """Turn what the user can fix into ``InputError``; other failures pass."""
    try:
        yield
    except botocore.exceptions.ClientError as error:
        code = _code(error)
        if code in ("404", "NoSuchKey", "NotFound"):
            raise _missing(uri) from error
        if code == "NoSuchBucket":
            raise InputError("uri", uri, "names a missing bucket", "create the bucket") from error
        if code in ("403", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch"):
            raise InputError("uri", uri, "was refused by the server", _S3_FIX) from error
        if code in ("411", "MissingContentLength", "XAmzContentSHA256Mismatch"):
            raise InputError("uri", uri, "needs plain uploads", _CHECKSUM_FIX) from error
        raise
    except (
        botocore.exceptions.NoCredentialsError,
        botocore.exceptions.EndpointConnectionError,
        botocore.exceptions.ParamValidationError,
    ) as error:
        raise InputError("uri", uri, f"cannot be reached ({error})", _S3_FIX) from error
