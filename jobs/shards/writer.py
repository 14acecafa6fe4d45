"""Writes shards: equal samples give equal bytes."""

import hashlib
import io
import tarfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import IO

from i2l_model.errors import InputError
from jobs import storage
from jobs.shards.names import is_sample_key, is_unsafe, split_name
from jobs.shards.tar import BLOCK


@dataclass(frozen=True, slots=True)
class ShardInfo:
    """A written shard."""

    uri: str
    sha256: str
    size: int
    num_samples: int


@dataclass(slots=True)
class ShardWriter:
    """Writes samples into ``<folder>/<prefix>-00000.tar`` and on; equal samples, equal bytes.

    The numbers begin with ``first_number``. A shard is closed before it would pass ``max_bytes``
    and only then appears under its name. Use it as a context manager; after the block, ``shards``
    lists what was written.
    """

    folder_uri: str
    prefix: str = "shard"
    max_bytes: int = 256 << 20
    first_number: int = 0
    shards: list[ShardInfo] = field(default_factory=list)
    _stack: ExitStack = field(default_factory=ExitStack, repr=False)
    _sink: "_HashingSink | None" = field(default=None, repr=False)
    _num_samples: int = 0

    def write(self, key: str, members: Mapping[str, bytes]) -> str:
        """Append one sample, members in sorted order, and return the URI of its shard.

        Raises:
            InputError: If the key cannot be read back: empty, absolute, with ".." or with a dot in
                its last component.
        """
        if not is_sample_key(key) or is_unsafe(key) or split_name(key) != (key, ""):
            raise InputError("key", key, "is no sample key", "leave out dots, './' and a first '/'")
        blob = _tar_members(key, members)
        if self._sink is not None and self._sink.size + len(blob) > self.max_bytes:
            self._finish_shard()
        if self._sink is None:
            self._sink = _HashingSink(self._stack.enter_context(storage.open_write(self._uri())))
        self._sink.write(blob)
        self._num_samples += 1
        return self._uri()

    def _uri(self) -> str:
        number = self.first_number + len(self.shards)
        return storage.join_uri(self.folder_uri, f"{self.prefix}-{number:05d}.tar")

    def _finish_shard(self) -> None:
        assert self._sink is not None
        self._sink.write(b"\0" * (2 * BLOCK))
        digest, size = self._sink.digest.hexdigest(), self._sink.size
        info = ShardInfo(self._uri(), digest, size, self._num_samples)
        self._stack.close()
        self.shards.append(info)
        self._sink, self._num_samples = None, 0

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        if kind is None:
            if self._sink is not None:
                self._finish_shard()
        else:
            self._stack.__exit__(kind, error, trace)  # type: ignore[arg-type]


@dataclass(slots=True)
class _HashingSink:
    """Counts and hashes what passes into the shard."""

    stream: IO[bytes]
    size: int = 0
    digest: "hashlib._Hash" = field(default_factory=hashlib.sha256)

    def write(self, data: bytes) -> None:
        self.stream.write(data)
        self.digest.update(data)
        self.size += len(data)


def _tar_members(key: str, members: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    for extension in sorted(members):
        info = tarfile.TarInfo(f"{key}.{extension}")
        info.size, info.mode = len(members[extension]), 0o444
        buffer.write(info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape"))
        buffer.write(members[extension])
        buffer.write(b"\0" * (-info.size % BLOCK))
    return buffer.getvalue()
