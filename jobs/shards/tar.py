"""Walking a tar that nobody vouches for: what is intact is found, whatever the headers claim.

Only what holds files matters here: links, devices and the like are passed over. Memory is bounded
by what the caller reads of a member and by ``MAX_HEADER_BYTES``.
"""

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import BinaryIO, NamedTuple

BLOCK = tarfile.BLOCKSIZE
MAX_HEADER_BYTES = 1 << 20
FILE, FOLDER, SPARSE = "file", "folder", "sparse"
CUT, DAMAGED = "truncated_shard", "corrupt_header"
_NAME_ERRORS = "backslashreplace"  # names that are no UTF-8 stay apart, and can be written again
_COPY_BYTES = 1 << 20
_MERGED_BYTES = 1 << 16  # a gap up to this size is read together with the header behind it
_BLANK = bytes(BLOCK)
_FILE_TYPES = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
_DATALESS = {
    tarfile.LNKTYPE: "hardlink",
    tarfile.SYMTYPE: "symlink",
    tarfile.CHRTYPE: "device",
    tarfile.BLKTYPE: "device",
    tarfile.FIFOTYPE: "device",
    tarfile.DIRTYPE: FOLDER,
}
_KINDS = _DATALESS | {tarfile.GNUTYPE_SPARSE: SPARSE}
_EXTENDING = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.XGLTYPE,
)
_MAX_SIZE_DIGITS = 19
_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd", b"PK\x03\x04")


class Entry(NamedTuple):
    """What a header announces.

    Attributes:
        name: Name of the file; "" where the header is damaged.
        size: Bytes that ``Tar.read`` may give.
        kind: ``FILE``; ``CUT`` for a file that claims to reach past the end; ``DAMAGED`` for a
            header; ``FOLDER``, ``SPARSE``, "hardlink", "symlink", "device" or "other".
    """

    name: str
    size: int
    kind: str


@dataclass(frozen=True, slots=True)
class _Extension:
    """What extended headers say about the next file."""

    name: str = ""
    size: int | None = None
    kind: str = FILE


_NOTHING = _Extension()


class Tar:
    """Iterates over the entries of a tar stream; ``read`` gives the bytes of the latest one.

    Damaged headers in a row are reported once, and the walk goes on at the next intact one; also
    after an entry that claims to reach past the end. Zero blocks between entries are passed over,
    so concatenated tars are read whole.

    Args:
        stream: The tar.
        size: Its size in bytes.

    Attributes:
        num_entries: Entries seen so far.
        truncated: Whether the stream ended within an entry, or without the end mark.
        compressed: Whether the stream is no tar but a compressed file; it has no entries then.
    """

    def __init__(self, stream: BinaryIO, size: int) -> None:
        self._stream = stream
        self._size = size
        self._rest = size  # bytes behind the latest header
        self._left = 0  # bytes between there and the next header
        self.num_entries = 0
        self.truncated = False
        self.compressed = False

    def __iter__(self) -> Iterator[Entry]:
        """Walk the headers."""
        extension = _NOTHING
        damaged = cut = ended = False
        for header in self._headers():
            ended = header == _BLANK
            if ended:
                continue
            self.num_entries += 1
            parsed = _parse_plain(header) or _parse_any(header)
            if parsed is None:
                if not damaged:
                    yield Entry("", 0, DAMAGED)
                damaged, extension = True, _NOTHING
                continue
            name, size, kind = parsed
            if kind == tarfile.GNUTYPE_SPARSE:
                self._skip_sparse_maps(header)
            if kind in _DATALESS:
                size = 0
            elif kind not in _EXTENDING and extension.size is not None:
                size = extension.size
            damaged = cut = not self._has_bytes(size)
            if kind in _EXTENDING:
                extension = self._extended(extension, kind, size)
                continue
            if kind in _FILE_TYPES:
                yield Entry(extension.name or name, size, CUT if cut else extension.kind)
            else:
                yield Entry(name, size, _KINDS.get(kind, "other"))
            extension = _NOTHING
        self.truncated = not ended and (cut or not damaged)

    @property
    def offset(self) -> int:
        """Where the bytes of the latest entry start, as long as they have not been read."""
        return self._size - self._rest

    def read(self, size: int) -> bytes | None:
        """The bytes of the latest entry, whose size the caller found fit; None if cut off."""
        if self._left < size:
            return None
        data = self._stream.read(size)
        self._left -= size
        self._rest -= size
        return data if len(data) == size else None

    def _headers(self) -> Iterator[bytes]:
        """The blocks where headers stand."""
        header = self._next_block()
        self.compressed = header.startswith(_COMPRESSED)
        while len(header) == BLOCK and not self.compressed:
            yield header
            header = self._next_block()

    def _next_block(self) -> bytes:
        """The next header block; shorter at the end of the stream."""
        left, self._left = self._left, 0
        self._rest -= left + BLOCK
        if left <= _MERGED_BYTES:
            return self._stream.read(left + BLOCK)[left:]
        if self._stream.seekable():
            self._stream.seek(left, 1)
        else:
            while left > 0 and (chunk := self._stream.read(min(left, _COPY_BYTES))):
                left -= len(chunk)
        return self._stream.read(BLOCK)

    def _has_bytes(self, size: int) -> bool:
        """Whether the entry's bytes are there; if not, what follows is searched for headers."""
        fits = size <= self._rest
        self._left = size + -size % BLOCK if fits else 0
        return fits

    def _skip_sparse_maps(self, header: bytes) -> None:
        more = header[482]
        while more and len(block := self._stream.read(BLOCK)) == BLOCK:
            self._rest -= BLOCK
            more = block[504]

    def _extended(self, extension: _Extension, kind: bytes, size: int) -> _Extension:
        """What is known about the next file after a GNU or pax record."""
        if kind in (tarfile.GNUTYPE_LONGLINK, tarfile.XGLTYPE):
            return extension  # the target of a link, defaults for all files: nothing that is used
        data = self.read(size) if size <= MAX_HEADER_BYTES else None
        if data is None:
            return replace(extension, kind=DAMAGED)
        if kind == tarfile.GNUTYPE_LONGNAME:
            name = data.partition(b"\0")[0].decode("utf-8", _NAME_ERRORS)
            return replace(extension, name=name)
        return _with_pax(extension, data)


_Header = tuple[str, int, bytes]  # name, size, type


def _parse_plain(header: bytes) -> _Header | None:
    """A header as most writers make it, which is read fast; None for any other."""
    try:
        checksum, size = int(header[148:154], 8), int(header[124:135], 8)
    except ValueError:
        return None
    if header[154] or header[135] not in b"\0 " or size < 0:
        return None
    if sum(header) - sum(header[148:156]) + 8 * 32 != checksum:
        return None
    name = header[:100].partition(b"\0")[0]
    kind = header[156:157]
    if header[345] and kind in _FILE_TYPES:
        name = header[345:500].partition(b"\0")[0] + b"/" + name
    if kind == tarfile.AREGTYPE and name.endswith(b"/"):
        kind = tarfile.DIRTYPE
    return name.decode("utf-8", _NAME_ERRORS), size, kind


def _parse_any(header: bytes) -> _Header | None:
    """A header in any of the formats that Python's tarfile knows; None if it is damaged."""
    try:
        info = tarfile.TarInfo.frombuf(header, "utf-8", _NAME_ERRORS)
    except (tarfile.HeaderError, ValueError):
        return None
    return (info.name, info.size, info.type) if info.size >= 0 else None


def _with_pax(extension: _Extension, data: bytes) -> _Extension:
    """Read pax records, lines of "LENGTH KEY=VALUE"; anything else makes the file damaged."""
    at = 0
    while at < len(data):
        digits = data[at : at + 20].partition(b" ")[0]
        end = at + int(digits) if digits.isdigit() else 0
        start = at + len(digits) + 1
        if not start < end <= len(data) or data[end - 1 : end] != b"\n":
            return replace(extension, kind=DAMAGED)
        key, _, value = data[start : end - 1].partition(b"=")
        if key == b"path":
            extension = replace(extension, name=value.decode("utf-8", _NAME_ERRORS))
        elif key == b"size":
            if not value.isdigit() or len(value) > _MAX_SIZE_DIGITS:
                return replace(extension, kind=DAMAGED)
            extension = replace(extension, size=int(value))
        elif key.startswith(b"GNU.sparse."):
            extension = replace(extension, kind=SPARSE)
        at = end
    return extension
