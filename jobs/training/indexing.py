"""The index stage: a Ray Data job that finds out which images a split's shards hold, and where.

What it finds is kept as Parquet, named by a hash of the shards, so that workers and later runs read
it without opening a shard.
"""

import io
import json
import logging
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from i2l_model.errors import InputError
from i2l_model.images import ImageError, decode_reduced
from jobs import provenance, shards, storage
from jobs.parquet_files import open_parquet
from jobs.training.pair_index import PairIndex, Record, build_index

logger = logging.getLogger(__name__)

_SCHEMA_VERSION = 1
_CHECKED_SIDE = 64  # pixels; a JPEG that is decoded at this size is read to its end
_IMAGE = pa.struct(
    {
        "key": pa.string(),
        "hash": pa.string(),
        "head": pa.string(),
        "shard": pa.int64(),
        "offset": pa.int64(),
        "size": pa.int64(),
        "width": pa.int64(),
        "height": pa.int64(),
    }
)
_SCHEMA = pa.schema(
    {
        "style": pa.string(),
        "prompt": pa.string(),
        "head": pa.string(),
        "target": _IMAGE,
        "refs": pa.list_(_IMAGE),
    }
)


def split_uri(pairs_uri: str, split: str) -> str:
    """Folder of a split's shards inside a mining output."""
    return storage.join_uri(pairs_uri, "shards", split)


def has_split(pairs_uri: str, split: str) -> bool:
    """Whether the mining output holds shards of ``split``."""
    return shards.has_shards(split_uri(pairs_uri, split))


def shards_hash(pairs_uri: str, split: str) -> str:
    """Hash of what an index depends on: the pairs, and how their shards are cut."""
    root = split_uri(pairs_uri, split)
    files = [[uri.rpartition("/")[2], storage.file_size(uri)] for uri in shards.list_shards(root)]
    return provenance.json_hash([_SCHEMA_VERSION, provenance.pairs_hash(pairs_uri), split, files])


def write_index(pairs_uri: str, split: str, uri: str) -> None:
    """Read all shards of a split, each in a Ray task of its own, and write the index.

    Args:
        pairs_uri: Output folder of mining.
        split: "train" or "val".
        uri: The Parquet file.

    Raises:
        InputError: If the split has no readable pair.
    """
    import ray.data

    uris = shards.list_shards(split_uri(pairs_uri, split))
    items = [{"shard": number, "uri": shard} for number, shard in enumerate(uris)]
    dataset = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
        _index_batch, batch_size=1
    )
    records: dict[int, list[Record]] = {}
    for row in dataset.iter_rows():
        for problem in row["dropped"]:
            logger.warning("pair %s is left out", problem)
        records[row["shard"]] = json.loads(row["records"])
    found = [record for number in sorted(records) for record in records[number]]
    if not found:
        raise InputError("pairs", pairs_uri, f"has no {split} pairs", "mine pairs first")
    store_index(found, uri)


def store_index(records: list[Record], uri: str) -> None:
    """Write the pairs as Parquet."""
    with open_parquet(uri, _SCHEMA) as writer:
        writer.write_table(pa.Table.from_pylist(records, _SCHEMA))


def _index_batch(batch: dict[str, Any]) -> dict[str, list[Any]]:
    dropped: list[str] = []
    records = list(index_shard(str(batch["uri"][0]), int(batch["shard"][0]), dropped))
    return {
        "shard": [int(batch["shard"][0])],
        "records": [json.dumps(records)],
        "dropped": [dropped],
    }


def index_shard(uri: str, number: int, dropped: list[str]) -> Iterator[Record]:
    """The pairs of one shard; what cannot be read is described in ``dropped``.

    Args:
        uri: The shard.
        number: Its number in the split.
        dropped: Gets a line for each pair that is left out.
    """

    def drop(key: str, reason: str) -> None:
        dropped.append(f"{key or 'without a key'} of {uri}: {reason}")

    for sample in shards.read_shard(uri, drop):
        try:
            yield _record(sample, number)
        except ImageError as error:
            drop(sample.key, f"{error.value}: {error.reason}")
        except (ValueError, KeyError, TypeError) as error:
            drop(sample.key, f"its description cannot be used ({type(error).__name__}: {error})")


def _record(sample: shards.ShardSample, shard: int) -> Record:
    described = json.loads(sample.members["json"])
    refs = zip(described["ref_keys"], described["ref_heads"], strict=True)
    return {
        "style": str(described["style_id"]),
        "prompt": str(described["target_prompt"]),
        "head": str(described["target_head"]),
        "target": _image(
            sample, "target.jpg", described["target_key"], described["target_head"], shard
        ),
        "refs": [
            _image(sample, f"ref_{i}.jpg", key, head, shard) for i, (key, head) in enumerate(refs)
        ],
    }


def _image(sample: shards.ShardSample, member: str, key: str, head: str, shard: int) -> Record:
    data = sample.members[member]
    decoded = decode_reduced(data, side=_CHECKED_SIDE, field=key, name=member)
    return {
        "key": str(key),
        "hash": provenance.bytes_hash(data),
        "head": str(head),
        "shard": shard,
        "offset": sample.offsets[member],
        "size": len(data),
        "width": decoded.width,
        "height": decoded.height,
    }


def read_index(pairs_uri: str, split: str, uri: str) -> PairIndex:
    """Load what `write_index` wrote.

    Args:
        pairs_uri: Output folder of mining.
        split: The split.
        uri: The Parquet file.
    """
    table = pyarrow.parquet.read_table(io.BytesIO(storage.read_bytes(uri)), schema=_SCHEMA)
    return build_index(_rows(table), shards.list_shards(split_uri(pairs_uri, split)))


def _rows(table: pa.Table) -> Iterable[Record]:
    for batch in table.to_batches(max_chunksize=10_000):
        yield from batch.to_pylist()
