"""Shards that nobody should have made, and what a reader has to make of each.

One builder for all tests that read them: at the reader, through the mining job, from any storage.
"""

import gzip
import io
import pickle
import tarfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

BLOCK = tarfile.BLOCKSIZE
BIG_TEXT_BYTES = 3 << 20
Members = list[tuple[str, bytes]]


@dataclass(frozen=True)
class HostileShard:
    """A tar with the truth about it.

    Attributes:
        name: File name, which tells the fault.
        data: The bytes.
        kept: Keys that are read, in order.
        drops: (key, reason) of what is left out, in any order.
        ignored: Members that are passed over, by kind.
    """

    name: str
    data: bytes
    kept: tuple[str, ...]
    drops: tuple[tuple[str, str], ...] = ()
    ignored: Counter[str] = field(default_factory=Counter)


class Explosive:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return (Path.touch, (self._path,))


def hostile_shards(image: bytes, exploded: Path) -> list[HostileShard]:
    """All of them.

    Args:
        image: Bytes of an intact JPEG, which every sample has.
        exploded: File that comes into being when a member is unpickled.
    """
    return [
        _truncated(image),
        _damaged(image),
        _huge_text(image),
        _pickles(image, exploded),
        _traversal(image),
        _duplicates(image),
        _scattered(image),
        _links(image),
        _lying_sizes(image),
        HostileShard("empty.tar", tar_bytes([]), (), (("", "empty_shard"),)),
        HostileShard("nothing.tar", b"", (), (("", "empty_shard"),)),
        HostileShard("garbage.tar", b"\x01<html>" * 999, (), (("", "corrupt_header"),)),
        HostileShard(
            "compressed.tar",
            gzip.compress(tar_bytes(samples("gz", image, 2))),
            (),
            (("", "compressed_shard"),),
        ),
    ]


def samples(prefix: str, image: bytes, count: int) -> Members:
    """Members of ordinary samples ``<prefix>0``, ``<prefix>1``, ..."""
    return [
        member
        for number in range(count)
        for member in (
            (f"{prefix}{number}.jpg", image),
            (f"{prefix}{number}.txt", f"a ball {number}".encode()),
        )
    ]


def tar_bytes(members: Iterable[tuple[str, bytes]]) -> bytes:
    """A tar whose names are kept as they are."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def _truncated(image: bytes) -> HostileShard:
    data = tar_bytes(samples("cut", image, 4))
    cut = data.index(b"cut2.jpg") + BLOCK + len(image) // 2
    return HostileShard(
        "truncated.tar", data[:cut], ("cut0", "cut1"), (("cut2", "truncated_shard"),)
    )


def _damaged(image: bytes) -> HostileShard:
    data = bytearray(tar_bytes(samples("bad", image, 4)))
    place = data.index(b"bad2.jpg")
    data[place : place + BLOCK] = b"\xff" * BLOCK
    drops = (("bad2", "corrupt_header"),)
    return HostileShard("damaged.tar", bytes(data), ("bad0", "bad1", "bad3"), drops)


def _huge_text(image: bytes) -> HostileShard:
    members = samples("text", image, 2)
    members.insert(2, ("text0.json", b"[" * BIG_TEXT_BYTES))
    drops = (("text0", "member_too_large"),)
    return HostileShard("huge-text.tar", tar_bytes(members), ("text1",), drops)


def _pickles(image: bytes, exploded: Path) -> HostileShard:
    bomb = pickle.dumps(Explosive(exploded))
    kinds = ("pkl", "pickle", "pt", "pth", "npy", "pyd")
    members = samples("bomb", image, 1) + [(f"bomb0.{kind}", bomb) for kind in kinds]
    return HostileShard("pickles.tar", tar_bytes(members), ("bomb0",), ignored=Counter(kinds))


def _traversal(image: bytes) -> HostileShard:
    keys = ("../up", "/etc/passwd", "in/../../out", "C:\\win")
    members = [member for key in keys for member in _sample(key, image)]
    return HostileShard(
        "traversal.tar",
        tar_bytes([*members, *samples("safe", image, 1)]),
        ("safe0",),
        tuple((key, "unsafe_name") for key in keys),
    )


def _sample(key: str, image: bytes) -> Members:
    return [(f"{key}.jpg", image), (f"{key}.txt", b"a ball")]


def _duplicates(image: bytes) -> HostileShard:
    members = _sample("twin", image) * 2 + samples("other", image, 1)
    return HostileShard(
        "duplicates.tar", tar_bytes(members), ("twin", "other0"), (("twin", "duplicate_key"),)
    )


def _scattered(image: bytes) -> HostileShard:
    members = _sample("here", image) + samples("between", image, 1) + _sample("here", image)
    drops = (("here", "non_adjacent_key"),)
    return HostileShard("scattered.tar", tar_bytes(members), ("here", "between0"), drops)


def _links(image: bytes) -> HostileShard:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE):
            info = tarfile.TarInfo("link.jpg")
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
    data = buffer.getvalue()[: 3 * BLOCK] + tar_bytes(samples("plain", image, 1))
    ignored = Counter(["symlink", "hardlink", "device"])
    return HostileShard("links.tar", data, ("plain0",), ignored=ignored)


def _lying_sizes(image: bytes) -> HostileShard:
    info = tarfile.TarInfo("lie.jpg")
    info.size = 1 << 62
    data = info.tobuf(tarfile.GNU_FORMAT) + tar_bytes(samples("true", image, 1))
    drops = (("lie", "truncated_shard"),)
    return HostileShard("lying-sizes.tar", data, ("true0",), drops)
