"""``samples.parquet``: what became of every sample of the input."""

import pyarrow as pa
import pyarrow.parquet as pq

from jobs import storage
from jobs.mining.features import Samples
from jobs.mining.mined import MinedPairs


def write_samples(samples: Samples, mined: MinedPairs, used: set[int], uri: str) -> None:
    """Write key, shard, reason ("" when kept), style id ("" without) and whether a pair uses it."""
    style = [""] * len(samples)
    for row, label in zip(mined.rows.tolist(), mined.styles.label.tolist(), strict=True):
        style[row] = mined.names[label] if label >= 0 else ""
    table = pa.table(
        {
            "key": samples.key,
            "shard": samples.shard,
            "reason": samples.reason,
            "style_id": style,
            "used": [row in used for row in range(len(samples))],
            "sha256": samples.sha256,
            "width": samples.size[:, 0],
            "height": samples.size[:, 1],
        }
    )
    with storage.open_write(uri) as stream:
        pq.write_table(table, stream, compression="zstd")
