"""Parquet files that are written a part at a time."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from jobs import storage


@contextmanager
def open_parquet(
    uri: str | Path, schema: pa.Schema, *, compression: str = "zstd"
) -> Iterator[pq.ParquetWriter]:
    """A writer whose file appears whole under ``uri`` when the block ends without an error."""
    with storage.open_write(uri) as stream:
        writer = pq.ParquetWriter(stream, schema, compression=compression)
        try:
            yield writer
            writer.close()
        finally:
            # An open writer would write again when it is collected, to a stream that is closed.
            with suppress(Exception):
                writer.close()
            writer.is_open = False
