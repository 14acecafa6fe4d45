"""All samples of the input as slim columns; texts and vectors stay in the feature files.

A sample costs the driver some dozen bytes. Its row number counts the samples of all shards in
order, so that shard and position follow from it. Texts are read again where they are needed, and
vectors are copied to mapped files.

Shapes: N samples, M images that are searched, D vector.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from jobs import storage
from jobs.mining.captions import read_caption
from jobs.mining.feature_schema import IGNORED_MEMBERS

_READERS = 8
_KEPT = 0
_COLUMNS = [
    *("reason", "caption", "source", "licence", "opt_out", "width", "height", "sha256", "phash"),
    *("aesthetic", "watermark", "nsfw"),
]


@dataclass(frozen=True, slots=True)
class InputShard:
    """An input shard, identified by its content; ``name`` is relative to the input."""

    uri: str
    name: str
    sha256: str
    size: int


@dataclass(slots=True)
class Samples:
    """Columns (N,) in the order of shards and positions.

    Attributes:
        shards: The input.
        features: URI of each shard's feature file.
        first: (S + 1,) row of each shard's first sample, then N.
        reason: Place in ``reason_names``; 0 for kept samples.
        reason_names: Why samples were dropped; "" comes first.
        area: Pixels.
        phash: Perceptual hash.
        sha: (N, 2) first 128 bits of the file's sha256.
        head: Hash of the caption's head noun, 0 for none.
        source: Hash of who made the picture or where it is from, 0 for unknown.
        licence: Number in ``licences``.
        opt_out: Whether the owner opted out.
        aesthetic, watermark, nsfw: Scores, NaN where not known.
        ignored_members: Suffix → members of the shards that were never opened.
    """

    shards: Sequence[InputShard]
    features: Sequence[str]
    first: NDArray[np.int64]
    reason: NDArray[np.int16]
    reason_names: list[str]
    area: NDArray[np.int64]
    phash: NDArray[np.uint64]
    sha: NDArray[np.uint64]
    head: NDArray[np.uint64]
    source: NDArray[np.uint64]
    licence: NDArray[np.int32]
    opt_out: NDArray[np.bool_]
    aesthetic: NDArray[np.float32]
    watermark: NDArray[np.float32]
    nsfw: NDArray[np.float32]
    licences: list[str] = field(default_factory=list)
    ignored_members: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.reason)

    def is_kept(self) -> NDArray[np.bool_]:
        """(N,) whether a sample has no drop reason."""
        kept: NDArray[np.bool_] = self.reason == _KEPT
        return kept

    def drop(self, rows: NDArray[np.bool_] | NDArray[np.integer], reason: str) -> None:
        """Give samples, named by a mask (N,) or row numbers, this reason."""
        self.reason[rows] = _code(self.reason_names, reason)

    def drop_counts(self) -> dict[str, int]:
        """Dropped samples by reason, most frequent first."""
        counts = np.bincount(self.reason, minlength=len(self.reason_names)).tolist()
        named = zip(self.reason_names, counts, strict=True)
        found = [(name, count) for name, count in named if name and count]
        return dict(sorted(found, key=lambda item: (-item[1], item[0])))

    def shard_of(self, rows: NDArray[np.integer]) -> NDArray[np.int64]:
        """Shard numbers of rows."""
        return np.searchsorted(self.first, rows, side="right") - 1

    def shard_at(self, row: int) -> InputShard:
        """The shard that holds a row."""
        return self.shards[int(self.shard_of(np.array([row]))[0])]

    def by_shard(self, rows: NDArray[np.integer]) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """Shard number and ascending rows, for each shard that holds some of ``rows``."""
        rows = np.unique(rows).astype(np.int64)
        shards, start = np.unique(self.shard_of(rows), return_index=True)
        parts = np.split(rows, start[1:])
        return iter(zip(shards.tolist(), parts, strict=True)) if len(rows) else iter(())

    def read(self, rows: NDArray[np.integer], columns: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Columns of the feature files, with "row", in ascending order of rows."""
        for shard, part in self.by_shard(rows):
            table = _read_table(self.features[shard], list(columns))
            chosen = table.take(pa.array(part - self.first[shard]))
            for row, values in zip(part.tolist(), chosen.to_pylist(), strict=True):
                yield {"row": row, **values}

    def shard_columns(self, number: int, columns: Sequence[str]) -> pa.Table:
        """Columns of all samples of one shard."""
        return _read_table(self.features[number], list(columns))

    def vectors(
        self, rows: NDArray[np.int64], folder: Path
    ) -> tuple[NDArray[np.float16], NDArray[np.float16]]:
        """Style and content (M, D) of ascending rows, as mapped files in ``folder``."""
        mapped: dict[str, NDArray[np.float16]] = {}
        done = 0
        for shard, part in self.by_shard(rows):
            table = _read_table(self.features[shard], ["style", "content"])
            chosen = table.take(pa.array(part - self.first[shard]))
            for name in ("style", "content"):
                blobs = chosen[name].to_pylist()
                values = np.frombuffer(b"".join(blobs), np.float16).reshape(len(blobs), -1)
                if name not in mapped:
                    path = folder / f"{name}.bin"
                    shape = (len(rows), values.shape[1])
                    mapped[name] = np.memmap(path, np.float16, "w+", shape=shape)
                mapped[name][done : done + len(part)] = values
            done += len(part)
        empty = np.zeros((0, 1), np.float16)
        return mapped.get("style", empty), mapped.get("content", empty)


def load_samples(
    shards: Sequence[InputShard], features: Sequence[str], style_words: Collection[str]
) -> Samples:
    """Read the columns of the feature files.

    Args:
        shards: The input.
        features: Feature file of each shard.
        style_words: Words of style that captions lose besides the lexicon's.
    """
    columns: dict[str, list[NDArray[Any]]] = {}
    reasons, licences = [""], list[str]()
    ignored: Counter[str] = Counter()
    first = [0]
    with ThreadPoolExecutor(max_workers=_READERS) as pool:
        for table in pool.map(_read_slim, features):
            first.append(first[-1] + len(table))
            ignored.update(json.loads((table.schema.metadata or {}).get(IGNORED_MEMBERS, "{}")))
            for name, values in _columns(table, reasons, licences, style_words).items():
                columns.setdefault(name, []).append(values)
    joined = {name: np.concatenate(parts) for name, parts in columns.items()}
    return Samples(
        shards=shards,
        features=features,
        first=np.array(first),
        reason_names=reasons,
        licences=licences,
        ignored_members=dict(sorted(ignored.items())),
        **joined,
    )


def _read_slim(uri: str) -> pa.Table:
    return _read_table(uri, _COLUMNS)


def _read_table(uri: str, columns: list[str]) -> pa.Table:
    with storage.open_read(uri) as stream:
        return pq.read_table(pa.BufferReader(stream.read()), columns=columns)


def _columns(
    table: pa.Table, reasons: list[str], licences: list[str], style_words: Collection[str]
) -> dict[str, NDArray[Any]]:
    kept = [not reason for reason in table["reason"].to_pylist()]
    captions = zip(table["caption"].to_pylist(), kept, strict=True)
    heads = [read_caption(text, style_words).head if use else "" for text, use in captions]
    return {
        "reason": _codes(table["reason"], reasons, np.int16),
        "area": table["width"].to_numpy().astype(np.int64) * table["height"].to_numpy(),
        "phash": table["phash"].to_numpy(),
        "sha": _sha(table["sha256"].to_pylist()),
        "head": np.array([text_hash(head) for head in heads], dtype=np.uint64),
        "source": np.array([text_hash(s) for s in table["source"].to_pylist()], dtype=np.uint64),
        "licence": _codes(table["licence"], licences, np.int32),
        "opt_out": table["opt_out"].to_numpy(),
        **{
            name: table[name].to_numpy().astype(np.float32)
            for name in ("aesthetic", "watermark", "nsfw")
        },
    }


def text_hash(text: str) -> int:
    """64 bits of a text; 0 for an empty one."""
    if not text:
        return 0
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def _sha(digests: Sequence[str]) -> NDArray[np.uint64]:
    """(n, 2) of hexadecimal digests; zeros for ""."""
    data = bytes.fromhex("".join(digest[:32] or "0" * 32 for digest in digests))
    return np.frombuffer(data, ">u8").astype(np.uint64).reshape(-1, 2)


def _codes(column: pa.ChunkedArray, names: list[str], dtype: Any) -> NDArray[Any]:
    """Places of the values in ``names``, which grows."""
    encoded = column.combine_chunks().dictionary_encode()
    codes = np.array([_code(names, value) for value in encoded.dictionary.to_pylist()], dtype)
    return codes[encoded.indices.to_numpy()] if len(codes) else np.zeros(0, dtype)


def _code(names: list[str], name: str) -> int:
    if name not in names:
        names.append(name)
    return names.index(name)
