"""Stage 10: writes the pairs as an index and as training shards.

Pairs are ordered by split, style and id, so that equal pairs give equal bytes.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from jobs import storage
from jobs.mining.captions import CaptionContent
from jobs.mining.mined import MinedPairs
from jobs.mining.pair import Pair
from jobs.mining.split import SPLITS
from jobs.mining.spool import ImageSpool, SpooledTexts
from jobs.parquet_files import open_parquet
from jobs.progress import Progress
from jobs.shards import ShardInfo, ShardWriter, remove_shards
from jobs.surrogates import replace_surrogates

INDEX_SCHEMA = pa.schema(
    [
        ("pair_id", pa.string()),
        ("split", pa.string()),
        ("style_id", pa.string()),
        ("ref_keys", pa.list_(pa.string())),
        ("target_key", pa.string()),
        ("target_prompt", pa.string()),
        ("style_similarity", pa.float64()),
        ("content_similarity", pa.float64()),
        ("ref_shards", pa.list_(pa.string())),
        ("target_shard", pa.string()),
    ]
)
_ROW_GROUP = 4096
_ID_DIGITS = 20
IndexRow = dict[str, Any]
CaptionReader = Callable[[str], CaptionContent]


@dataclass(frozen=True, slots=True)
class OrderedPairs:
    """The pairs in the order in which they are written, P of them.

    Attributes:
        numbers: (P,) numbers of the pairs in ``MinedPairs``.
        pair_ids: (P,) ids, made of the images' hashes.
        splits: (P,) places in ``SPLITS``, ascending.
    """

    numbers: NDArray[np.int64]
    pair_ids: NDArray[np.bytes_]
    splits: NDArray[np.int64]

    def of_split(self, split: str) -> Iterator[tuple[int, str]]:
        """(number, pair id) of one split's pairs."""
        chosen = self.splits == SPLITS.index(split)
        ids = (pair_id.decode() for pair_id in self.pair_ids[chosen])
        return zip(self.numbers[chosen].tolist(), ids, strict=True)


def order_pairs(mined: MinedPairs, sha: NDArray[np.uint64]) -> OrderedPairs:
    """Order by split, style id and pair id; ``sha`` (M, 2) are the hashes of the images."""
    pairs = mined.selection.pairs
    ids = np.array([_pair_id(pair, sha) for pair in pairs], dtype=f"S{_ID_DIGITS}")
    styles = np.array([pair.style for pair in pairs], dtype=np.int64)
    rank = np.argsort(np.argsort(np.array(mined.names, dtype=str), kind="stable"))
    places = [SPLITS.index(mined.splits.get(name, SPLITS[0])) for name in mined.names]
    split = np.array(places, dtype=np.int64)[styles]
    order = np.lexsort((ids, rank[styles], split)) if len(pairs) else np.zeros(0, np.int64)
    return OrderedPairs(order, ids[order], split[order])


def _pair_id(pair: Pair, sha: NDArray[np.uint64]) -> str:
    images = sha[[pair.target, *pair.refs]].astype(">u8").tobytes()
    return hashlib.sha256(images).hexdigest()[:_ID_DIGITS]


def write_pairs(
    mined: MinedPairs,
    ordered: OrderedPairs,
    spool: ImageSpool,
    read: CaptionReader,
    shard_mib: int,
    output_uri: str,
    progress: Progress,
) -> dict[str, list[ShardInfo]]:
    """Write ``index.parquet`` and ``shards/<split>/pairs-00000.tar`` and on.

    Shards of an earlier run are removed first.

    Returns:
        The shards of each split.
    """
    folders = {split: storage.join_uri(output_uri, "shards", split) for split in SPLITS}
    for folder in folders.values():
        remove_shards(folder, "pairs")
    written: dict[str, list[ShardInfo]] = {}
    with open_parquet(storage.join_uri(output_uri, "index.parquet"), INDEX_SCHEMA) as parquet:
        index = _IndexWriter(parquet)
        for split, folder in folders.items():
            with ShardWriter(folder, "pairs", shard_mib << 20) as writer:
                for number, pair_id in ordered.of_split(split):
                    pair = mined.selection.pairs[number]
                    rows = [int(mined.rows[image]) for image in (pair.target, *pair.refs)]
                    texts = [spool.texts(row) for row in rows]
                    style_id = mined.names[pair.style]
                    row = index_row(pair_id, split, style_id, pair, texts, read)
                    index.add(row)
                    writer.write(pair_id, _members(rows, spool, sample_json(row, texts, read)))
                    progress.update("write", index.num_rows, len(ordered.numbers))
            written[split] = writer.shards
        index.flush()
    return written


def index_row(
    pair_id: str,
    split: str,
    style_id: str,
    pair: Pair,
    texts: list[SpooledTexts],
    read: CaptionReader,
) -> IndexRow:
    """The row of ``index.parquet``; ``texts`` are the target's, then the references'."""
    target, *refs = texts
    return {
        "pair_id": pair_id,
        "split": split,
        "style_id": style_id,
        "ref_keys": [ref.key for ref in refs],
        "target_key": target.key,
        "target_prompt": read(target.caption).prompt,
        "style_similarity": round(pair.style_similarity, 4),
        "content_similarity": round(pair.content_similarity, 4),
        "ref_shards": [ref.shard for ref in refs],
        "target_shard": target.shard,
    }


def sample_json(row: IndexRow, texts: list[SpooledTexts], read: CaptionReader) -> bytes:
    """What a pair's JSON in the shard tells: the index row without places, and all texts."""
    target, *refs = texts
    described = {name: row[name] for name in row if name not in ("ref_shards", "target_shard")}
    described |= {
        "target_head": read(target.caption).head,
        "ref_prompts": [read(ref.caption).prompt for ref in refs],
        "ref_heads": [read(ref.caption).head for ref in refs],
        "target_meta": target.meta,
        "ref_metas": [ref.meta for ref in refs],
    }
    text = json.dumps(described, sort_keys=True, ensure_ascii=False)
    return replace_surrogates(text).encode()


def _members(rows: list[int], spool: ImageSpool, described: bytes) -> dict[str, bytes]:
    target, *refs = rows
    members = {f"ref_{n}.jpg": spool.get(row) for n, row in enumerate(refs)}
    return members | {"target.jpg": spool.get(target), "json": described}


class _IndexWriter:
    """Collects rows and writes them a row group at a time."""

    def __init__(self, writer: pq.ParquetWriter) -> None:
        self._writer = writer
        self._waiting: list[IndexRow] = []
        self.num_rows = 0

    def add(self, row: IndexRow) -> None:
        self._waiting.append(row)
        self.num_rows += 1
        if len(self._waiting) == _ROW_GROUP:
            self.flush()

    def flush(self) -> None:
        self._writer.write_table(pa.Table.from_pylist(self._waiting, schema=INDEX_SCHEMA))
        self._waiting = []
