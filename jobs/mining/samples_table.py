"""``samples.parquet``: what became of every sample of the input, one row group a shard."""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from jobs.mining.mined import MinedPairs
from jobs.mining.samples import Samples
from jobs.parquet_files import open_parquet

SAMPLES_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("shard", pa.string()),  # relative to the input
        ("reason", pa.string()),  # "" when kept
        ("style_id", pa.string()),  # "" without
        ("used", pa.bool_()),  # in a pair
        ("sha256", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
    ]
)
_COPIED = ["key", "sha256", "width", "height"]


def write_samples(samples: Samples, mined: MinedPairs, used: NDArray[np.integer], uri: str) -> None:
    """Write the table; ``used`` holds the rows of images in pairs."""
    style = np.full(len(samples), -1, np.int32)
    style[mined.rows] = mined.styles.label
    is_used = np.zeros(len(samples), bool)
    is_used[used] = True
    names = np.array([*mined.names, ""], dtype=object)
    reasons = np.array(samples.reason_names, dtype=object)
    with open_parquet(uri, SAMPLES_SCHEMA) as writer:
        for number, shard in enumerate(samples.shards):
            rows = slice(samples.first[number], samples.first[number + 1])
            columns = samples.shard_columns(number, _COPIED)
            table = pa.table(
                {
                    **{name: columns[name] for name in _COPIED},
                    "shard": [shard.name] * len(columns),
                    "reason": reasons[samples.reason[rows]],
                    "style_id": names[style[rows]],
                    "used": is_used[rows],
                }
            )
            writer.write_table(table.select(SAMPLES_SCHEMA.names).cast(SAMPLES_SCHEMA))
