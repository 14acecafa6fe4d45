"""From the members of a tar to samples, one at a time, and a reason for each that is left out."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from jobs import storage
from jobs.shards import names
from jobs.shards.names import MAX_NAME_CHARS
from jobs.shards.tar import CUT, DAMAGED, FILE, FOLDER, Entry, Tar

MAX_MEMBER_BYTES = 64 << 20
MAX_TEXT_BYTES = 1 << 20
MAX_SAMPLE_MEMBERS = 256
_MEMBERS_OF_FULL_SIZE = 8  # so many of the largest members fit into a sample
DropCallback = Callable[[str, str], None]  # (key, reason)
IgnoreCallback = Callable[[str], None]  # kind of member


@dataclass(frozen=True, slots=True)
class ShardSample:
    """One sample.

    Attributes:
        key: The key.
        members: Extension, in lower case → bytes.
        offsets: Extension → where these bytes start in the tar.
    """

    key: str
    members: dict[str, bytes]
    offsets: dict[str, int]


def _report_nothing(*_: str) -> None:
    """Callback that counts nothing."""


def read_shard(
    uri: str,
    on_drop: DropCallback = _report_nothing,
    on_ignore: IgnoreCallback = _report_nothing,
    *,
    max_member_bytes: int = MAX_MEMBER_BYTES,
    max_text_bytes: int = MAX_TEXT_BYTES,
) -> Iterator[ShardSample]:
    """Yield the samples of one tar in order, saving what a damaged one still holds.

    Members are images and texts, see ``jobs.shards.names``; all others are passed over unread,
    and the sample stays. A sample that cannot be read whole is left out, for one reason:

    - "truncated_shard": the tar ends within it, or after it without the end mark
    - "corrupt_header": reading goes on at the next intact header
    - "member_too_large", "sample_too_large": more bytes or members than the limits
    - "unsafe_name": an absolute name, or one that leaves its folder
    - "duplicate_key": it begins again right behind a sample of its key
    - "non_adjacent_key": a sample of its key came before, further up

    With the key "", the shard itself is at fault: "corrupt_header" and "truncated_shard" outside
    of samples, "compressed_shard", "empty_shard".

    Args:
        uri: The tar.
        on_drop: Called as ``on_drop(key, reason)`` for what is left out, in order.
        on_ignore: Called for every member that is passed over, with its suffix, "other", or
            what it is instead of a file: "symlink", "hardlink", "device", "sparse".
        max_member_bytes: Largest image.
        max_text_bytes: Largest text, JSON or caption.

    Raises:
        InputError: If there is no such file.
    """
    limits = {names.IMAGE: max_member_bytes, names.TEXT: max_text_bytes}
    size = storage.file_size(uri)
    with storage.open_read(uri) as stream:
        for sample in _Grouping(Tar(stream, size), limits, on_drop, on_ignore):
            if sample.problem:
                on_drop(sample.key[:MAX_NAME_CHARS], sample.problem)
            else:
                yield ShardSample(sample.key, sample.members, sample.offsets)


@dataclass(slots=True)
class _Sample:
    """A sample whose members are being read.

    Attributes:
        key: The key.
        problem: Why it will be left out, if it will.
        suspect: Whether a header was damaged within or just before it.
        members: Extension → bytes; the bytes are gone once there is a problem.
        offsets: Extension → where its bytes start.
        num_bytes: Size of the members.
    """

    key: str
    problem: str
    suspect: bool
    members: dict[str, bytes] = field(default_factory=dict)
    offsets: dict[str, int] = field(default_factory=dict)
    num_bytes: int = 0

    def fail(self, problem: str) -> None:
        """Give the sample up; the first reason stays."""
        if not self.problem:
            self.problem = problem
            self.members = dict.fromkeys(self.members, b"")


class _Grouping:
    """Joins adjacent members of one key.

    Whose member a damaged header was is told by the members that the sample before it has: the
    sample beside the damage which lacks one of those is left out.
    """

    def __init__(
        self, tar: Tar, limits: dict[str, int], on_drop: DropCallback, on_ignore: IgnoreCallback
    ) -> None:
        self._tar, self._limits = tar, limits
        self._on_drop, self._on_ignore = on_drop, on_ignore
        self._seen: set[int] = set()  # hashes of the keys so far
        self._sample: _Sample | None = None
        self._usual: frozenset[str] = frozenset()  # extensions of the latest intact sample
        self._unplaced = self._next_suspect = False

    def __iter__(self) -> Iterator[_Sample]:
        """The samples in order, and those that are left out."""
        for entry in self._tar:
            if entry.kind == DAMAGED:
                self._damage()
                continue
            key, extension = names.split_name(entry.name)
            if entry.kind not in (FILE, CUT) or not names.is_sample_key(key) or not extension:
                if entry.kind != FOLDER:
                    self._on_ignore("other" if entry.kind in (FILE, CUT) else entry.kind)
                continue
            sample = self._sample
            if sample is None or key != sample.key or extension in sample.members:
                if sample is not None:
                    yield self._finished(sample)
                sample = self._begin(key, entry.name)
            self._add(sample, entry, extension)
        if self._sample is not None:
            if self._tar.truncated:
                self._sample.fail(CUT)
            yield self._finished(self._sample)
        self._report_shard()

    def _damage(self) -> None:
        self._unplaced = self._next_suspect = True
        if self._sample is not None:
            self._sample.suspect = True

    def _begin(self, key: str, name: str) -> _Sample:
        problem = ""
        if names.is_unsafe(name):
            problem = "unsafe_name"
        elif self._sample is not None and key == self._sample.key:
            problem = "duplicate_key"
        elif hash(key) in self._seen:
            problem = "non_adjacent_key"
        self._seen.add(hash(key))
        self._sample = _Sample(key, problem, self._next_suspect)
        self._next_suspect = False
        return self._sample

    def _add(self, sample: _Sample, entry: Entry, extension: str) -> None:
        kind = names.kind_of(extension)
        if entry.kind == CUT:
            sample.fail(CUT)
        if not kind:
            self._on_ignore(names.shown_suffix(extension))
            return
        data = None
        sample.num_bytes += entry.size
        if entry.size > self._limits[kind]:
            sample.fail("member_too_large")
        elif (
            len(sample.members) >= MAX_SAMPLE_MEMBERS
            or sample.num_bytes > _MEMBERS_OF_FULL_SIZE * self._limits[names.IMAGE]
        ):
            sample.fail("sample_too_large")
        elif not sample.problem:
            sample.offsets[extension] = self._tar.offset
            data = self._tar.read(entry.size)
            if data is None:
                sample.fail(CUT)
        if len(sample.members) < MAX_SAMPLE_MEMBERS:
            sample.members[extension] = data or b""

    def _finished(self, sample: _Sample) -> _Sample:
        """Judge what damage near the sample did to it."""
        extensions = frozenset(sample.members)
        if sample.suspect and not (self._usual and self._usual <= extensions):
            sample.fail(DAMAGED)
            self._unplaced = False
        elif self._unplaced and not self._next_suspect:
            self._report_unplaced()
        if not sample.problem or not self._usual:
            self._usual = extensions
        return sample

    def _report_unplaced(self) -> None:
        """Count damage that no sample shows: one vanished whole, or no member was hit."""
        self._on_drop("", DAMAGED)
        self._unplaced = False

    def _report_shard(self) -> None:
        if self._unplaced:
            self._report_unplaced()
        elif self._tar.compressed:
            self._on_drop("", "compressed_shard")
        elif not self._tar.num_entries:
            self._on_drop("", "empty_shard")
        elif self._tar.truncated and self._sample is None:
            self._on_drop("", CUT)
