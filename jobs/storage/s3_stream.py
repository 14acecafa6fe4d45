"""Reading one S3 object as a stream that survives broken connections."""

import io
import logging
import random
import re
import time
from pathlib import Path
from typing import Any

import botocore.exceptions
import urllib3.exceptions

from i2l_model.errors import InputError
from jobs.storage import s3_client
from jobs.storage.s3_errors import StorageError, error_code, s3_errors, translated
from jobs.storage.uris import split_s3

logger = logging.getLogger(__name__)

_BROKEN = (
    botocore.exceptions.HTTPClientError,  # timeouts, resets
    botocore.exceptions.IncompleteReadError,
    urllib3.exceptions.HTTPError,
    OSError,
)
_CHANGED = ("412", "PreconditionFailed")
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")
_PROGRESS_BYTES = 1 << 20  # a stream that got so far since it broke gets all its attempts back
_MAX_PAUSE_S = 20.0


class ObjectStream(io.RawIOBase):
    """The bytes of one version of an object.

    A stream that breaks or ends early goes on at its offset by a ranged request; the entity tag
    must stay the same, so that the bytes are never a mixture of two versions.

    Raises:
        InputError: If there is no such object, or it is replaced while it is read.
        StorageError: If the stream keeps breaking.
    """

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._bucket, self._key = split_s3(uri)
        self._offset = 0
        self._skip = 0  # bytes that come again, since the server ignored a range
        self._num_failures, self._failed_at = 0, 0
        with s3_errors(uri):
            answer = s3_client.client().get_object(Bucket=self._bucket, Key=self._key)
        self._body: Any = answer["Body"]
        self._etag: str | None = answer.get("ETag")
        self._size: int | None = answer.get("ContentLength")

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read some bytes; 0 only at the object's true end."""
        while True:
            data = self._next(min(len(buffer), self._skip or len(buffer)))
            if data is None:
                continue
            if self._skip and data:
                self._skip -= len(data)
                continue
            buffer[: len(data)] = data
            self._offset += len(data)
            return len(data)

    def _next(self, num_bytes: int) -> bytes | None:
        """Bytes of the current body, b"" at the end; None when it broke and was resumed."""
        at_end = self._size is not None and self._offset >= self._size
        try:
            data: bytes = self._body.read(num_bytes)
        except botocore.exceptions.FlexibleChecksumError as error:
            raise translated(self._uri, error) from error
        except _BROKEN as error:
            if at_end:
                return b""
            self._resume(error)
            return None
        if num_bytes and not data and self._size is not None and not at_end:
            self._resume(EOFError(f"ended at byte {self._offset} of {self._size}"))
            return None
        return data

    def close(self) -> None:
        """Give the connection up; what is left of the object is not read."""
        if not self.closed:
            self._body.close()
        super().close()

    def _resume(self, error: Exception) -> None:
        """Ask for the rest, after a pause; raises when the attempts are spent."""
        if self._offset - self._failed_at >= _PROGRESS_BYTES:
            self._num_failures = 0
        self._num_failures, self._failed_at = self._num_failures + 1, self._offset
        if self._num_failures >= s3_client.max_attempts():
            raise translated(self._uri, error) from error
        logger.info("%s broke at byte %d and is resumed: %s", self._uri, self._offset, error)
        self._body.close()
        time.sleep(random.random() * min(2.0 ** (self._num_failures - 1), _MAX_PAUSE_S))
        self._body, start = self._rest()
        self._skip = self._offset - start

    def _rest(self) -> tuple[Any, int]:
        """A body of the same version and where it starts: at the offset, or before it."""
        conditions = {"IfMatch": self._etag} if self._etag else {}
        request = {"Bucket": self._bucket, "Key": self._key, "Range": f"bytes={self._offset}-"}
        try:
            with s3_errors(self._uri):
                answer = s3_client.client(ranged=True).get_object(**request, **conditions)
        except StorageError as error:
            if _is_changed(error.__cause__):
                raise self._changed() from error
            raise
        start, total = _place(answer, self._offset, self._size)
        if answer.get("ETag") != self._etag or (total and self._size and total != self._size):
            answer["Body"].close()
            raise self._changed()
        if start is None:
            answer["Body"].close()
            raise StorageError(f"{self._uri} cannot be resumed: the server sent another range")
        return answer["Body"], start

    def _changed(self) -> InputError:
        fix = "leave the input as it is while it is read, and run the command again"
        return InputError("uri", self._uri, "was replaced while it was read", fix)


def read_range(uri: str | Path, offset: int, size: int) -> bytes:
    """Bytes of an object from ``offset`` on; fewer where it ends.

    Raises:
        InputError: If there is no such object.
        StorageError: If the connection keeps breaking.
    """
    bucket, key = split_s3(uri)
    request = {"Bucket": bucket, "Key": key, "Range": f"bytes={offset}-{offset + size - 1}"}
    for attempt in range(s3_client.max_attempts()):
        with s3_errors(uri):
            answer = s3_client.client(ranged=True).get_object(**request)
        try:
            data: bytes = answer["Body"].read()
        except _BROKEN as error:
            failure = error
            time.sleep(random.random() * min(2.0**attempt, _MAX_PAUSE_S))
            continue
        return data if len(data) <= size else data[offset : offset + size]  # a range not honoured
    raise translated(uri, failure) from failure


def _is_changed(error: BaseException | None) -> bool:
    return isinstance(error, botocore.exceptions.ClientError) and error_code(error) in _CHANGED


def _place(answer: dict[str, Any], offset: int, size: int | None) -> tuple[int | None, int | None]:
    """First byte of an answer to a ranged request, and the object's size; None if unknown.

    Servers exist that send the part with status 200 instead of 206, and such that ignore the
    range; so neither the status nor the header is relied on alone.
    """
    length = answer.get("ContentLength")
    match = _CONTENT_RANGE.match(answer.get("ContentRange") or "")
    if match:
        start, total = int(match[1]), int(match[2]) if match[2].isdigit() else None
        whole = total is None or length is None or start + length == total
        return (start if whole and start <= offset else None), total
    if length is None or size is None:
        status = answer["ResponseMetadata"]["HTTPStatusCode"]
        return (offset if status == 206 else 0), None
    starts = {size: 0, size - offset: offset}
    return starts.get(length), None
