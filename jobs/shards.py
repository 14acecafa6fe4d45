"""WebDataset shards: a salvaging reader for untrusted tars and a deterministic writer.

Members stay bytes: nothing is decoded by extension and nothing is ever unpickled.
"""

import hashlib
import io
import re
import tarfile
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import product
from typing import IO, BinaryIO

from i2l_model.errors import InputError
from jobs import storage

BLOCK = tarfile.BLOCKSIZE
MAX_MEMBER_BYTES = 64 << 20
MAX_HEADER_BYTES = 1 << 20
_NAME_ERRORS = "backslashreplace"  # names that are no UTF-8 stay apart, and can be written again
DropCallback = Callable[[str, str], None]  # (key, reason)


@dataclass(frozen=True, slots=True)
class ShardSample:
    """One sample: the key and its members, extension → bytes (extensions in lower case)."""

    key: str
    members: dict[str, bytes]


@dataclass(frozen=True, slots=True)
class ShardInfo:
    """A written shard."""

    uri: str
    sha256: str
    size: int
    num_samples: int


def _ignore(key: str, reason: str) -> None:
    """Drop callback that counts nothing."""


def read_shard(
    uri: str, on_drop: DropCallback = _ignore, *, max_member_bytes: int = MAX_MEMBER_BYTES
) -> Iterator[ShardSample]:
    """Yield the samples of one tar in order, saving what a damaged one still holds.

    A sample that cannot be read whole is left out and reported as ``on_drop(key, reason)``:
    "truncated_shard" (cut inside the sample), "corrupt_header" (reading goes on at the next
    intact header), "member_too_large", "non_adjacent_key" (its members are scattered).

    Raises:
        InputError: If there is no such file.
    """
    with storage.open_read(uri) as stream:
        yield from _group(_read_members(stream, max_member_bytes), on_drop)


@dataclass(slots=True)
class _Member:
    """A regular file of the tar; ``problem`` replaces ``data`` where it is unusable."""

    name: str
    data: bytes = b""
    problem: str = ""


def _split_name(name: str) -> tuple[str, str]:
    """Key and extension: the extension begins at the first dot of the last path component."""
    folder, slash, base = name.removeprefix("./").rpartition("/")
    stem, _, extension = base.partition(".")
    return f"{folder}{slash}{stem}", extension.lower()


def _group(members: Iterator[_Member], on_drop: DropCallback) -> Iterator[ShardSample]:
    """Join adjacent members of one key; a bad member takes its whole sample with it."""
    seen: set[str] = set()
    key, parts, problem = "", dict[str, bytes](), ""
    for member in members:
        if not member.name:  # a damaged header: the open sample may have lost members
            problem = problem or member.problem
            if not key:
                on_drop("", member.problem)
                problem = ""
            continue
        member_key, extension = _split_name(member.name)
        if member_key != key:
            if key:
                yield from _finished(key, parts, problem, on_drop)
            key, parts = member_key, {}
            problem = "non_adjacent_key" if member_key in seen else ""
            seen.add(member_key)
        problem = problem or member.problem
        parts.setdefault(extension, member.data)
    if key:
        yield from _finished(key, parts, problem, on_drop)


def _finished(
    key: str, parts: dict[str, bytes], problem: str, on_drop: DropCallback
) -> Iterator[ShardSample]:
    if problem:
        on_drop(key, problem)
    else:
        yield ShardSample(key, parts)


def _read_members(stream: BinaryIO, max_member_bytes: int) -> Iterator[_Member]:
    """Walk the tar's headers; a cut ends the walk, a damaged header skips to the next good one."""
    long_name, damaged = "", False
    while len(header := stream.read(BLOCK)) == BLOCK:
        if not header.strip(b"\0"):
            damaged = False
            continue
        try:
            info = tarfile.TarInfo.frombuf(header, "utf-8", _NAME_ERRORS)
            if info.size < 0:
                raise tarfile.HeaderError("negative size")
        except (tarfile.HeaderError, ValueError):
            if not damaged:
                yield _Member("", problem="corrupt_header")
            damaged, long_name = True, ""
            continue
        damaged = False
        if info.type in (tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE):
            long_name = _extended_name(info, _read_data(stream, info.size, MAX_HEADER_BYTES))
        elif info.isreg():
            name, long_name = long_name or info.name, ""
            data = _read_data(stream, info.size, max_member_bytes)
            if data is None:
                problem = "member_too_large" if info.size > max_member_bytes else "truncated_shard"
                yield _Member(name, problem=problem)
            else:
                yield _Member(name, data)
        else:
            long_name = ""
            _skip(stream, _padded(info.size))


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def _read_data(stream: BinaryIO, size: int, limit: int) -> bytes | None:
    """The member's bytes; None if the tar ends before them or they exceed ``limit``."""
    if size > limit:
        _skip(stream, _padded(size))
        return None
    data = stream.read(size)
    stream.read(_padded(size) - size)
    return data if len(data) == size else None


def _skip(stream: BinaryIO, size: int) -> None:
    while size > 0 and (chunk := stream.read(min(size, 1 << 20))):
        size -= len(chunk)


def _extended_name(info: tarfile.TarInfo, data: bytes | None) -> str:
    """The long file name in a GNU "L" or pax "x" record; "" where it holds none."""
    if data is None:
        return ""
    if info.type == tarfile.GNUTYPE_LONGNAME:
        return data.rstrip(b"\0").decode("utf-8", _NAME_ERRORS)
    match = re.search(rb"\d+ path=([^\n]*)\n", data)
    return match.group(1).decode("utf-8", _NAME_ERRORS) if match else ""


def list_shards(uri: str) -> list[str]:
    """Expand a folder, one tar or a brace pattern like ``train-{000..127}.tar``.

    Returns:
        Absolute URIs in sorted order, at least one.

    Raises:
        InputError: If the place does not exist or holds no tar.
    """
    if "{" in uri:
        shards = [storage.absolute_uri(name) for name in _expand_braces(uri)]
    elif uri.endswith(".tar"):
        shards = [storage.absolute_uri(uri)]
    else:
        shards = storage.list_files(storage.absolute_uri(uri), ".tar")
        if not shards:
            raise InputError("input", uri, "holds no .tar shards", "give a folder of shards")
    for shard in shards:
        if ("{" in uri or uri.endswith(".tar")) and not storage.exists(shard):
            raise InputError("input", shard, "does not exist", "check the shard's URI")
    return sorted(shards)


def has_shards(folder_uri: str) -> bool:
    """Whether the folder exists and holds a tar."""
    return storage.exists(folder_uri) and bool(storage.list_files(folder_uri, ".tar"))


def remove_shards(folder_uri: str, prefix: str, keep: Container[str] = ()) -> None:
    """Remove what a ``ShardWriter`` of this prefix left in the folder; all other files stay.

    Args:
        folder_uri: The folder.
        prefix: The writer's.
        keep: Names of shards that stay.
    """
    root = storage.absolute_uri(folder_uri)
    for uri in storage.list_files(root, ".tar") if storage.exists(root) else ():
        name = uri[len(root) :].lstrip("/")
        if re.fullmatch(rf"{re.escape(prefix)}-\d{{5,}}\.tar", name) and name not in keep:
            storage.delete(uri)


def _expand_braces(pattern: str) -> list[str]:
    """``a{0..2}b{x,y}`` → every combination; numbers keep the width of the first bound."""
    choices: list[list[str]] = []
    for piece in re.split(r"(\{[^{}]*\})", pattern):
        span = re.fullmatch(r"\{(\d+)\.\.(\d+)\}", piece)
        if span:
            first, last = span.groups()
            if abs(int(last) - int(first)) > 1_000_000:
                raise InputError("input", pattern, "expands to too many shards", "split it")
            width = len(first)
            choices.append([f"{i:0{width}d}" for i in range(int(first), int(last) + 1)])
        elif piece.startswith("{") and piece.endswith("}"):
            choices.append(piece[1:-1].split(","))
        else:
            choices.append([piece])
    return ["".join(combination) for combination in product(*choices)]


@dataclass(slots=True)
class ShardWriter:
    """Writes samples into ``<folder>/<prefix>-00000.tar`` and on; equal samples, equal bytes.

    The numbers begin with ``first_number``. A shard is closed before it would pass ``max_bytes``
    and only then appears under its name. Use it as a context manager; after the block, ``shards`` lists what was written.
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
            InputError: If the key cannot be read back: empty, or a dot in its last component.
        """
        if not key or _split_name(key) != (key, ""):
            raise InputError("key", key, "is no sample key", "leave out dots and './'")
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
        buffer.write(b"\0" * (_padded(info.size) - info.size))
    return buffer.getvalue()
