"""Features of all samples: computed with Ray Data, kept as one Parquet file a shard.

A shard's file is named after the shard's content and the settings that shape features, so that a
rerun, a killed run or a grown input computes only what is missing. A change of thresholds computes
nothing; a change of an encoder, of a scorer's model or of a limit at ingest reads the shards anew.
"""

import logging
import math
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import ray
import ray.data

from jobs import storage
from jobs.mining.config import WorkerConfig
from jobs.mining.embed import ModelStage
from jobs.mining.embed_progress import EmbedProgress
from jobs.mining.feature_plan import CHUNK_ROWS, FeaturePlan, ModelStep
from jobs.mining.feature_schema import IGNORED_MEMBERS, SCHEMA
from jobs.mining.ingest import END, IngestStage
from jobs.mining.samples import InputShard
from jobs.progress import Progress
from jobs.provenance import json_hash

logger = logging.getLogger(__name__)

_BLOCK_BYTES = 4 << 20


def feature_uri(plan: FeaturePlan, shard: InputShard, output_uri: str) -> str:
    """Where a shard's features lie: equal shards and settings share a file."""
    name = json_hash([plan.identity, shard.sha256])[:32]
    return storage.join_uri(output_uri, "features", f"{name}.parquet")


def compute_features(
    plan: FeaturePlan,
    workers: WorkerConfig,
    shards: list[InputShard],
    output_uri: str,
    progress: Progress,
) -> int:
    """Write the feature files that are missing, each as soon as its shard is complete.

    Returns:
        Their number. A killed call leaves those that are finished.

    Raises:
        InputError, StorageError, ShardError: If a shard cannot be worked on.
    """
    missing: dict[str, str] = {}  # feature file → shard; shards of equal bytes are read once
    for shard in shards:
        target = feature_uri(plan, shard, output_uri)
        if target not in missing and not storage.exists(target):
            missing[target] = shard.uri
    targets = list(missing)
    uris = list(missing.values())
    for number, table in _complete_shards(plan, workers, uris, progress):
        with storage.open_write(targets[number]) as stream:
            pq.write_table(table, stream, compression="zstd")
    return len(missing)


def _complete_shards(
    plan: FeaturePlan, workers: WorkerConfig, uris: list[str], progress: Progress
) -> Iterator[tuple[int, pa.Table]]:
    """Yield (number of the shard, its table) in the order in which shards are complete."""
    if not uris:
        return
    _warn_of_memory(plan, workers)
    parts: list[list[pa.Table]] = [[] for _ in uris]
    expected: dict[int, int] = {}
    ignored: dict[int, str] = {}
    num_done, counts = 0, EmbedProgress(progress, len(uris))
    batches = feature_pipeline(plan, workers, uris).iter_batches(
        batch_size=None, batch_format="pyarrow"
    )
    for block in batches:
        assert isinstance(block, pa.Table)
        for number in pc.unique(block["shard"]).to_pylist():
            rows = block.filter(pc.equal(block["shard"], number))
            is_end = pc.equal(rows["reason"], END)
            for end in rows.filter(is_end).select(["position", "meta"]).to_pylist():
                expected[number], ignored[number] = end["position"], end["meta"]
            rows = rows.filter(pc.invert(is_end)).select(SCHEMA.names).cast(SCHEMA)
            parts[number].append(rows)
            if sum(len(part) for part in parts[number]) == expected.get(number):
                num_done += 1
                yield number, _joined(parts[number], ignored[number])
                parts[number] = []
        num_kept, num_ends = (_count(block["reason"], reason) for reason in ("", END))
        counts.add(num_kept, len(block) - num_kept - num_ends, num_done)
    if num_done < len(uris):
        raise RuntimeError(f"{len(uris) - num_done} shards ended before their last row")


def _warn_of_memory(plan: FeaturePlan, workers: WorkerConfig) -> None:
    """Say so if actors would wait for memory that the cluster does not have at present."""
    wanted = [workers.ingest_memory_mib, *(step.config.workers.memory_mib for step in plan.models)]
    there = int(ray.cluster_resources().get("memory", 0)) >> 20  # type: ignore[no-untyped-call]
    if sum(wanted) > there:
        logger.warning(
            "an actor of each stage reserves %d MiB together, the cluster has %d; work waits until "
            "there is more, or lower mining.workers.ingest_memory_mib and the models' memory_mib",
            sum(wanted),
            there,
        )


def _count(reasons: pa.ChunkedArray, reason: str) -> int:
    return int(pc.sum(pc.equal(reasons, reason)).as_py() or 0)


def _joined(parts: list[pa.Table], ignored: str) -> pa.Table:
    """A shard's rows in order, without gaps."""
    table = pa.concat_tables(parts).sort_by("position").combine_chunks()
    assert (table["position"].to_numpy() == np.arange(len(table))).all(), "rows came twice"
    return table.replace_schema_metadata({IGNORED_MEMBERS: ignored})


def feature_pipeline(plan: FeaturePlan, workers: WorkerConfig, uris: list[str]) -> ray.data.Dataset:
    """Shards → rows with descriptors and crops → one stage a model.

    Pools are of fixed size and blocks are small: models begin before a shard is read to its end,
    and no stage piles up what the next one has not taken yet.
    """
    context = ray.data.DataContext.get_current().copy()
    context.target_max_block_size = max(_BLOCK_BYTES, 2 * CHUNK_ROWS * _crop_bytes(plan))
    with ray.data.DataContext.current(context):
        dataset = _ingest(plan, workers, uris)
        for number, step in enumerate(plan.models):
            needed = {later.pixels for later in plan.models[number + 1 :]}
            drop = () if step.pixels in needed else (step.pixels,)
            dataset = _with_model(dataset, step, drop, workers.num_cpus)
        return dataset


def _ingest(plan: FeaturePlan, workers: WorkerConfig, uris: list[str]) -> ray.data.Dataset:
    num_parts = math.ceil(workers.num_ingest / len(uris))
    items = [
        {"shard": number, "uri": uri, "part": part, "num_parts": num_parts}
        for number, uri in enumerate(uris)
        for part in range(num_parts)
    ]
    return ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
        IngestStage,
        fn_constructor_args=(plan,),
        batch_size=1,
        num_cpus=workers.num_cpus,
        memory=workers.ingest_memory_mib << 20,
        compute=ray.data.ActorPoolStrategy(
            size=min(workers.num_ingest, len(items)), max_tasks_in_flight_per_actor=1
        ),
    )


def _with_model(
    dataset: ray.data.Dataset, step: ModelStep, drop: tuple[str, ...], num_cpus: float
) -> ray.data.Dataset:
    model = step.config.workers
    return dataset.map_batches(
        ModelStage,
        fn_constructor_args=(step, drop),
        batch_size=None,
        batch_format="pyarrow",
        num_cpus=num_cpus,
        num_gpus=1 if model.device == "cuda" else None,
        memory=model.memory_mib << 20,
        compute=ray.data.ActorPoolStrategy(size=model.num_actors),
    )


def _crop_bytes(plan: FeaturePlan) -> int:
    return sum(3 * crop.height * crop.width for _, crop in plan.crops)
