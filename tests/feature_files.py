"""Samples that lie in real feature files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from jobs.mining.feature_schema import IGNORED_MEMBERS, SCHEMA
from jobs.mining.sample_row import dropped_row
from jobs.mining.samples import InputShard, Samples, load_samples

Row = Mapping[str, Any]


def feature_row(number: int, **values: Any) -> dict[str, Any]:
    """A kept sample whose hashes follow from its number."""
    vector = np.array([number, 1], np.float16).tobytes()
    row = dropped_row(number, f"k{number}", "")
    row |= {
        "caption": "a dog",
        "width": 64,
        "height": 64,
        "sha256": f"{number:064x}"[::-1],
        "phash": 0x9E3779B97F4A7C15 * (number + 1) % 2**64,
        "thumbnail": bytes(192),
        "style": vector,
        "content": vector,
    }
    return row | values


def samples_in(folder: Path, *shards: Sequence[Row], ignored: str = "{}") -> Samples:
    """Write one feature file a shard and load them."""
    inputs, features = [], []
    for number, rows in enumerate(shards):
        table = pa.Table.from_pylist(
            [{name: row.get(name) for name in SCHEMA.names} for row in rows], schema=SCHEMA
        )
        path = folder / f"features-{number}.parquet"
        pq.write_table(table.replace_schema_metadata({IGNORED_MEMBERS: ignored}), path)
        inputs.append(InputShard(f"/in/{number}.tar", f"{number}.tar", f"{number}", 1))
        features.append(str(path))
    return load_samples(inputs, features, ())


def reasons_of(samples: Samples) -> list[str]:
    """The reason of each sample."""
    return [samples.reason_names[code] for code in samples.reason]
