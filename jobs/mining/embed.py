"""Stage 2: encoder actors. Each loads its encoder once and adds one column of vectors."""

import numpy as np
import pyarrow as pa

from jobs.mining.encoders import load_encoder
from jobs.mining.ingest import pixels_of

_PIXELS = ["pixels", "pixels_width", "pixels_height"]


class EmbedStage:
    """Ray Data actor: adds ``column`` with fp16 vectors as bytes, b"" for dropped rows.

    Args:
        encoder: Name in the registry.
        column: Column to add.
        drop_pixels: Leave the pixels out of the result; set on the last encoder.
    """

    def __init__(self, encoder: str, column: str, drop_pixels: bool = False) -> None:
        self._encoder = load_encoder(encoder)
        self._column = column
        self._drop_pixels = drop_pixels

    def __call__(self, table: pa.Table) -> pa.Table:
        """Encode the rows that are kept."""
        batch = table.to_pydict()
        kept = [i for i, reason in enumerate(batch["reason"]) if not reason]
        vectors = [b""] * len(batch["reason"])
        if kept:
            rows = [{name: batch[name][i] for name in batch} for i in kept]
            images = [pixels_of(row) for row in rows]
            encoded = self._encoder(images, [str(row["caption"]) for row in rows])
            for i, vector in zip(kept, encoded.astype(np.float16), strict=True):
                vectors[i] = vector.tobytes()
        result = table.append_column(self._column, pa.array(vectors, pa.binary()))
        return result.drop_columns(_PIXELS) if self._drop_pixels else result
