"""Stage 10: writes the pairs as an index and as training shards.

Pairs are ordered by split, style and id, so that equal pairs give equal bytes.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from jobs import storage
from jobs.mining.captions import CaptionContent
from jobs.mining.features import Samples
from jobs.mining.selection import Pair
from jobs.mining.split import SPLITS
from jobs.mining.spool import ImageSpool
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
IndexRow = dict[str, Any]


@dataclass(frozen=True, slots=True)
class PairRecord:
    """A pair with all that is written of it; ``refs`` and ``target`` are sample rows."""

    index: IndexRow
    refs: tuple[int, ...]
    target: int
    sample_json: bytes


def describe_pairs(
    pairs: Sequence[Pair],
    rows: Sequence[int],
    samples: Samples,
    captions: dict[int, CaptionContent],
    names: Sequence[str],
    splits: dict[str, str],
) -> list[PairRecord]:
    """Turn image numbers into keys, prompts and ids, ordered by split, style and target.

    Args:
        pairs: The selected pairs, in image numbers.
        rows: Sample row of each image number.
        samples: All samples.
        captions: What was read of the caption, by sample row.
        names: Style ids by style number.
        splits: Split by style id.
    """
    records = [_record(pair, rows, samples, captions, names[pair.style], splits) for pair in pairs]
    return sorted(
        records,
        key=lambda r: (SPLITS.index(r.index["split"]), r.index["style_id"], r.index["pair_id"]),
    )


def _record(
    pair: Pair,
    rows: Sequence[int],
    samples: Samples,
    captions: dict[int, CaptionContent],
    name: str,
    splits: dict[str, str],
) -> PairRecord:
    target, refs = int(rows[pair.target]), tuple(int(rows[ref]) for ref in pair.refs)
    content_id = "".join(samples.sha256[i] for i in (target, *refs))
    index: IndexRow = {
        "pair_id": hashlib.sha256(content_id.encode()).hexdigest()[:20],
        "split": splits[name],
        "style_id": name,
        "ref_keys": [samples.key[i] for i in refs],
        "target_key": samples.key[target],
        "target_prompt": captions[target].prompt,
        "style_similarity": round(pair.style_similarity, 4),
        "content_similarity": round(pair.content_similarity, 4),
        "ref_shards": [samples.shard[i] for i in refs],
        "target_shard": samples.shard[target],
    }
    described = {name: value for name, value in index.items() if not name.endswith("shards")}
    described.pop("target_shard")
    described |= {
        "target_head": captions[target].head,
        "ref_prompts": [captions[i].prompt for i in refs],
        "ref_heads": [captions[i].head for i in refs],
        "target_meta": json.loads(samples.meta[target]),
        "ref_metas": [json.loads(samples.meta[i]) for i in refs],
    }
    text = json.dumps(described, sort_keys=True, ensure_ascii=False)
    return PairRecord(index, refs, target, replace_surrogates(text).encode())


def write_index(records: Sequence[PairRecord], uri: str) -> None:
    """Write ``index.parquet``, one row a pair."""
    table = pa.Table.from_pylist([record.index for record in records], schema=INDEX_SCHEMA)
    with storage.open_write(uri) as stream:
        pq.write_table(table, stream, compression="zstd")


def write_pair_shards(
    records: Sequence[PairRecord],
    spool: ImageSpool,
    shard_mib: int,
    output_uri: str,
    progress: Progress,
) -> dict[str, list[ShardInfo]]:
    """Write ``shards/<split>/pairs-00000.tar`` and on; those of an earlier run are removed first.

    Returns:
        The shards of each split.
    """
    folders = {split: storage.join_uri(output_uri, "shards", split) for split in SPLITS}
    for folder in folders.values():
        remove_shards(folder, "pairs")
    written: dict[str, list[ShardInfo]] = {}
    done = 0
    for split, folder in folders.items():
        with ShardWriter(folder, "pairs", shard_mib << 20) as writer:
            for record in (r for r in records if r.index["split"] == split):
                writer.write(record.index["pair_id"], _members(record, spool))
                done += 1
                progress.update("write", done, len(records))
        written[split] = writer.shards
    return written


def _members(record: PairRecord, spool: ImageSpool) -> dict[str, bytes]:
    members = {f"ref_{n}.jpg": spool.get(row) for n, row in enumerate(record.refs)}
    return members | {"target.jpg": spool.get(record.target), "json": record.sample_json}
