"""Features of all samples: computed with Ray Data, kept as one Parquet file a shard.

A shard's file is named after the shard's content and the settings that shape features, so that a
rerun, a killed run or a grown input computes only what is missing.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray.data
from numpy.typing import NDArray

from jobs import storage
from jobs.mining.config import MiningConfig
from jobs.mining.embed import EmbedStage
from jobs.mining.embed_progress import EmbedProgress
from jobs.mining.encoders import REGISTRY
from jobs.mining.feature_schema import FEATURE_SCHEMA_VERSION, SCHEMA
from jobs.mining.ingest import END, IngestStage
from jobs.progress import Progress
from jobs.provenance import json_hash

_BLOCK_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class InputShard:
    """An input shard, identified by its content."""

    uri: str
    sha256: str
    size: int


@dataclass(slots=True)
class Samples:
    """All samples of the input as columns, sorted by shard and position.

    ``reason`` is "" for kept samples and is filled in by later stages. ``style`` and ``content``
    are fp16 (M, D) for the samples that were embedded, whose row numbers are ``embedded`` (M,).
    """

    shard: list[str]
    key: list[str]
    reason: list[str]
    caption: list[str]
    meta: list[str]
    size: NDArray[np.int64]
    sha256: list[str]
    phash: NDArray[np.uint64]
    thumbnail: list[bytes]
    embedded: NDArray[np.int64]
    style: NDArray[np.float16]
    content: NDArray[np.float16]

    def __len__(self) -> int:
        return len(self.key)


def extract_features(
    config: MiningConfig, shards: list[InputShard], output_uri: str, progress: Progress
) -> tuple[Samples, int]:
    """Compute what is missing and load everything.

    Returns:
        The samples and the number of shards that had to be computed.
    """
    targets = {shard.uri: _feature_uri(config, shard, output_uri) for shard in shards}
    missing = [shard.uri for shard in shards if not storage.exists(targets[shard.uri])]
    for uri, table in _computed(config, missing, progress):
        with storage.open_write(targets[uri]) as stream:
            pq.write_table(table, stream, compression="zstd")
    samples = _load([(shard.uri, targets[shard.uri]) for shard in shards])
    return samples, len(missing)


def _feature_uri(config: MiningConfig, shard: InputShard, output_uri: str) -> str:
    shaping = {
        "version": FEATURE_SCHEMA_VERSION,
        "ingest": config.ingest.model_dump(mode="json"),
        "encoders": [config.style_encoder, config.content_encoder],
        "shard": shard.sha256,
    }
    return storage.join_uri(output_uri, "features", f"{json_hash(shaping)[:32]}.parquet")


def _computed(
    config: MiningConfig, shards: list[str], progress: Progress
) -> Iterator[tuple[str, pa.Table]]:
    """Yield (shard, table) whenever a shard is complete, in the order in which they finish."""
    if not shards:
        return
    parts: dict[str, list[pa.Table]] = {uri: [] for uri in shards}
    expected: dict[str, int] = {}
    counts = EmbedProgress(progress, len(shards))
    for block in _pipeline(config, shards).iter_batches(batch_size=None, batch_format="pyarrow"):
        assert isinstance(block, pa.Table)
        for uri in set(block["shard"].to_pylist()):
            rows = block.filter(pa.compute.equal(block["shard"], uri))
            is_end = pa.compute.equal(rows["reason"], END)
            for end in rows.filter(is_end)["position"].to_pylist():
                expected[uri] = end
            rows = rows.filter(pa.compute.invert(is_end)).select(SCHEMA.names).cast(SCHEMA)
            parts[uri].append(rows)
            if uri in expected and sum(len(part) for part in parts[uri]) == expected[uri]:
                yield uri, pa.concat_tables(parts.pop(uri)).sort_by("position")
        num_kept = pa.compute.sum(pa.compute.equal(block["reason"], "")).as_py() or 0
        num_ends = pa.compute.sum(pa.compute.equal(block["reason"], END)).as_py() or 0
        counts.add(num_kept, len(block) - num_kept - num_ends, len(shards) - len(parts))
    assert not parts, f"incomplete shards: {sorted(parts)}"


def _pipeline(config: MiningConfig, shards: list[str]) -> ray.data.Dataset:
    """Shards → rows → style vectors → content vectors, in small blocks.

    Small blocks let the encoders begin before a shard is read to its end, and share one shard.
    """
    context = ray.data.DataContext.get_current().copy()
    context.target_max_block_size = _BLOCK_BYTES
    with ray.data.DataContext.current(context):
        return _stages(config, shards)


def _stages(config: MiningConfig, shards: list[str]) -> ray.data.Dataset:
    workers = config.workers
    encoders = (config.style_encoder, config.content_encoder)
    input_px = max(REGISTRY[name].input_px for name in encoders)
    dataset: ray.data.Dataset = ray.data.from_items(
        [{"shard": uri} for uri in shards], override_num_blocks=len(shards)
    )
    dataset = dataset.map_batches(
        IngestStage,
        fn_constructor_args=(config.ingest, input_px),
        batch_size=1,
        num_cpus=workers.num_cpus,
        compute=ray.data.ActorPoolStrategy(size=min(workers.num_ingest, len(shards))),
    )
    stages = (
        (config.style_encoder, "style", workers.num_style, False),
        (config.content_encoder, "content", workers.num_content, True),
    )
    for encoder, column, num_actors, drop_pixels in stages:
        dataset = dataset.map_batches(
            EmbedStage,
            fn_constructor_args=(encoder, column, drop_pixels),
            batch_size=workers.batch_size,
            batch_format="pyarrow",
            num_cpus=workers.num_cpus,
            compute=ray.data.ActorPoolStrategy(size=num_actors),
        )
    return dataset


def _load(features: list[tuple[str, str]]) -> Samples:
    """Read the feature files; a row's shard is where the shard lies now."""
    tables, places = [], list[str]()
    for uri, feature_uri in features:
        with storage.open_read(feature_uri) as stream:
            tables.append(pq.read_table(pa.BufferReader(stream.read()), schema=SCHEMA))
        places += [uri] * len(tables[-1])
    table = pa.concat_tables(tables)
    reasons = table["reason"].to_pylist()
    embedded = np.array([i for i, reason in enumerate(reasons) if not reason], dtype=np.int64)
    kept = table.take(pa.array(embedded))
    sizes = np.stack([table["width"].to_numpy(), table["height"].to_numpy()], axis=1)
    return Samples(
        shard=places,
        key=table["key"].to_pylist(),
        reason=reasons,
        caption=table["caption"].to_pylist(),
        meta=table["meta"].to_pylist(),
        size=sizes.astype(np.int64),
        sha256=table["sha256"].to_pylist(),
        phash=table["phash"].to_numpy(),
        thumbnail=table["thumbnail"].to_pylist(),
        embedded=embedded,
        style=_matrix(kept["style"]),
        content=_matrix(kept["content"]),
    )


def _matrix(column: pa.ChunkedArray) -> NDArray[np.float16]:
    """fp16 vectors stored as bytes → (M, D)."""
    blobs = column.to_pylist()
    if not blobs:
        return np.zeros((0, 1), dtype=np.float16)
    return np.frombuffer(b"".join(blobs), dtype=np.float16).reshape(len(blobs), -1)
