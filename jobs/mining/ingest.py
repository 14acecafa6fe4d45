"""Stage 1: shards → rows, with the vectors of cheap descriptors and the crops that models want.

A shard is worked on in chunks of ``CHUNK_ROWS`` positions. Chunks are the batches of every
encoder, so that a vector does not depend on how work is spread. Few shards are read by several
actors at once, each of which decodes its share of the chunks.
"""

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from i2l_model.errors import InputError
from jobs.mining.embed import checked_vectors
from jobs.mining.encoders import load_encoder
from jobs.mining.feature_plan import CHUNK_ROWS, ROW_SCHEMA, FeaturePlan
from jobs.mining.sample_row import Row, RowAndImage, dropped_row, read_sample
from jobs.shards import ShardSample, read_shard
from jobs.storage import StorageError

END = "end_of_shard"
"""Reason of a last row for each part of a shard: "position" is the shard's number of rows, "meta"
the members that were passed over."""


class ShardError(RuntimeError):
    """A shard that cannot be worked on, named in the message."""


class IngestStage:
    """Ray Data actor: {"shard", "uri", "part", "num_parts"} → tables of rows.

    An actor, since Ray Data would fuse a task with the stage behind it and then hand all shards
    to one worker at once.

    Args:
        plan: What to compute.
    """

    def __init__(self, plan: FeaturePlan) -> None:
        self._plan = plan
        self._descriptors = [(column, load_encoder(config)) for column, config in plan.descriptors]

    def __call__(self, batch: dict[str, Any]) -> Iterator[pa.Table]:
        """Read the shards one after the other."""
        columns = (batch[name] for name in ("shard", "uri", "part", "num_parts"))
        for shard, uri, part, num_parts in zip(*columns, strict=True):
            place = "before its first sample"
            try:
                for table in self._tables(int(shard), str(uri), int(part), int(num_parts)):
                    place = f"behind position {table['position'][-1]}"
                    yield table
            except (InputError, StorageError):
                raise  # they name the shard, or the setting, and the fix
            except Exception as error:
                message = f"shard {uri} failed {place}: {type(error).__name__}: {error}"
                raise ShardError(message) from error

    def _tables(self, shard: int, uri: str, part: int, num_parts: int) -> Iterator[pa.Table]:
        """This part's chunks, then the end row."""
        chunk: list[RowAndImage] = []
        num_rows, ignored = 0, Counter[str]()
        for position, entry in enumerate(self._entries(uri, ignored)):
            num_rows = position + 1
            if position // CHUNK_ROWS % num_parts == part:
                chunk.append(self._read(position, entry))
            if num_rows % CHUNK_ROWS == 0 and chunk:
                yield self._table(shard, chunk)
                chunk = []
        if chunk:
            yield self._table(shard, chunk)
        end = dropped_row(num_rows, "", END) | {"meta": json.dumps(ignored, sort_keys=True)}
        yield self._table(shard, [RowAndImage(end)])

    def _entries(self, uri: str, ignored: Counter[str]) -> Iterator[ShardSample | tuple[str, str]]:
        """The samples, and between them (key, reason) of what the reader dropped."""
        dropped: list[tuple[str, str]] = []
        samples = read_shard(
            uri,
            lambda key, reason: dropped.append((key, reason)),
            lambda kind: ignored.update((kind,)),
            max_member_bytes=self._plan.ingest.max_member_mib << 20,
        )
        for sample in samples:
            yield from dropped
            dropped.clear()
            yield sample
        yield from dropped

    def _read(self, position: int, entry: ShardSample | tuple[str, str]) -> RowAndImage:
        """The row, with the image scaled down to what is needed later on."""
        if not isinstance(entry, ShardSample):
            return RowAndImage(dropped_row(position, *entry))
        plan = self._plan
        read = read_sample(position, entry, plan.ingest, plan.reduced_px)
        if read.image is None:
            return read
        crops = {column: crop(read.image).tobytes() for column, crop in plan.crops}
        working = working_copy(read.image, plan.working_px) if plan.descriptors else None
        return RowAndImage(read.row | crops, working)

    def _table(self, shard: int, chunk: list[RowAndImage]) -> pa.Table:
        kept = [entry for entry in chunk if entry.image is not None]
        for column, descriptor in self._descriptors if kept else ():
            images = [np.asarray(entry.image) for entry in kept]
            vectors = descriptor(images, [entry.row["caption"] for entry in kept])
            name = dict(self._plan.descriptors)[column].name
            for entry, vector in zip(kept, checked_vectors(vectors, column, name), strict=True):
                entry.row[column] = vector
        rows: list[Row] = [entry.row | {"shard": shard} for entry in chunk]
        schema = ROW_SCHEMA
        for column, _ in self._plan.crops:
            schema = schema.append(pa.field(column, pa.binary()))
        return pa.Table.from_pylist(rows, schema=schema)


def working_copy(image: Image.Image, side: int) -> Image.Image:
    """Scaled down to a short side of ``side`` pixels; smaller images stay."""
    short = min(image.size)
    if short <= side:
        return image
    width, height = (max(side, round(length * side / short)) for length in image.size)
    return image.resize((width, height), Image.Resampling.BOX, reducing_gap=3.0)
