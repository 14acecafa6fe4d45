"""Objects in S3, on any server: what ``jobs.storage`` does with ``s3://`` URIs."""

import io
import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, BinaryIO

import boto3.s3.transfer
import botocore.exceptions

from jobs.storage import s3_client
from jobs.storage.s3_errors import MISSING_OBJECT, error_code, s3_errors
from jobs.storage.s3_stream import ObjectStream
from jobs.storage.uris import missing, split_s3

logger = logging.getLogger(__name__)

READ_BUFFER_BYTES = 1 << 20
_WHOLE_BYTES = 8 << 20  # larger files go up in parts of this size
_IN_PARTS = boto3.s3.transfer.TransferConfig(
    multipart_threshold=_WHOLE_BYTES, multipart_chunksize=_WHOLE_BYTES, max_concurrency=4
)
_KEYS_A_DELETE = 1000  # the protocol's limit


def exists(uri: str | Path) -> bool:
    """Whether an object, or one below this prefix, is there."""
    bucket, key = split_s3(uri)
    with s3_errors(uri):
        if key and _object_size(bucket, key) is not None:
            return True
        try:
            page = s3_client.client().list_objects_v2(Bucket=bucket, Prefix=_folder(key), MaxKeys=1)
        except botocore.exceptions.ClientError as error:
            if error_code(error) in ("404", "NoSuchBucket"):
                return False
            raise
        return bool(page.get("Contents"))


def file_size(uri: str | Path) -> int:
    """Size in bytes."""
    with s3_errors(uri):
        size = _object_size(*split_s3(uri))
    if size is None:
        raise missing(uri)
    return size


def list_files(uri: str | Path, suffix: str, name_prefix: str) -> list[str]:
    """Sorted URIs of the objects below a prefix."""
    bucket, key = split_s3(uri)
    names = (k for k in _keys(uri, bucket, _folder(key) + name_prefix) if k.endswith(suffix))
    files = (k for k in names if not k.endswith("/") and not k.rpartition("/")[2].startswith("."))
    return sorted(f"s3://{bucket}/{name}" for name in files)


@contextmanager
def open_read(uri: str | Path) -> Iterator[BinaryIO]:
    """A buffered stream over an object."""
    with io.BufferedReader(ObjectStream(str(uri)), buffer_size=READ_BUFFER_BYTES) as stream:
        yield stream


@contextmanager
def open_write(uri: str | Path) -> Iterator[IO[bytes]]:
    """A stream into a local temporary file, uploaded when the block ends without an error.

    Large files go up in parts that become the object together, or are given up.
    """
    bucket, key = split_s3(uri)
    with tempfile.TemporaryFile() as stream:
        yield stream
        size = stream.seek(0, io.SEEK_END)
        stream.seek(0)
        client = s3_client.client()
        with s3_errors(uri):
            if size <= _WHOLE_BYTES:
                client.put_object(Bucket=bucket, Key=key, Body=stream)
            else:
                client.upload_fileobj(stream, bucket, key, Config=_IN_PARTS)


def delete(uri: str | Path) -> None:
    """Remove an object and all below it, hidden ones too."""
    bucket, key = split_s3(uri)
    keys = _keys(uri, bucket, _folder(key))
    with s3_errors(uri):
        # Servers that keep objects as files fail to delete the name of a folder.
        if key and _object_size(bucket, key) is not None:
            s3_client.client().delete_object(Bucket=bucket, Key=key)
        for start in range(0, len(keys), _KEYS_A_DELETE):
            _delete_batch(bucket, keys[start : start + _KEYS_A_DELETE])


def _delete_batch(bucket: str, keys: list[str]) -> None:
    """Remove many objects by one request, or one by one what the server leaves."""
    request: dict[str, Any] = {"Objects": [{"Key": key} for key in keys], "Quiet": True}
    try:
        answer = s3_client.client().delete_objects(Bucket=bucket, Delete=request)
        left = [str(entry["Key"]) for entry in answer.get("Errors", ())]
    except (botocore.exceptions.ClientError, botocore.exceptions.ParamValidationError) as error:
        logger.info("objects are deleted one by one: %s", error)
        left = keys
    for key in left:
        s3_client.client().delete_object(Bucket=bucket, Key=key)


def _keys(uri: str | Path, bucket: str, prefix: str) -> list[str]:
    with s3_errors(uri):
        pages = s3_client.client().get_paginator("list_objects_v2")
        found = pages.paginate(Bucket=bucket, Prefix=prefix)
        return [str(entry["Key"]) for page in found for entry in page.get("Contents", ())]


def _folder(key: str) -> str:
    """The prefix of what lies below a key; "" for a whole bucket."""
    return key if key == "" or key.endswith("/") else f"{key}/"


def _object_size(bucket: str, key: str) -> int | None:
    try:
        return int(s3_client.client().head_object(Bucket=bucket, Key=key)["ContentLength"])
    except botocore.exceptions.ClientError as error:
        if error_code(error) in (*MISSING_OBJECT, "NoSuchBucket"):
            return None
        raise
