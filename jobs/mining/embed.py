"""Stage 2: actors of models. Each loads its model once and fills one column of the rows."""

from collections.abc import Sequence
from itertools import groupby

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from i2l_model.errors import InputError
from jobs.mining.encoders import Encoder, load_encoder
from jobs.mining.encoders.preprocessing import Crop, Pixels
from jobs.mining.feature_plan import CHUNK_ROWS, ModelStep
from jobs.mining.feature_schema import SCHEMA
from jobs.mining.scorers import Scorer, load_scorer


class ModelStage:
    """Ray Data actor: fills the step's column for kept rows and leaves out what no one needs.

    Args:
        step: Which model, from which crops, into which column.
        drop: Columns that no later stage reads.
    """

    def __init__(self, step: ModelStep, drop: Sequence[str] = ()) -> None:
        self._step = step
        self._drop = list(drop)
        self._encoder: Encoder | None = None
        self._scorer: Scorer | None = None
        if step.encoder is not None:
            self._encoder = load_encoder(step.encoder)
        else:
            assert step.scorer is not None
            self._scorer = load_scorer(step.score, step.scorer)

    def __call__(self, table: pa.Table) -> pa.Table:
        """Run the model on each chunk of the table."""
        step = self._step
        places = zip(table["shard"].to_pylist(), table["position"].to_pylist(), strict=True)
        chunks = [(shard, position // CHUNK_ROWS) for shard, position in places]
        kept = [not reason for reason in table["reason"].to_pylist()]
        values: list[object] = table[step.column].to_pylist()
        for _, group in groupby(range(len(table)), key=lambda row: chunks[row]):
            rows = [row for row in group if kept[row]]
            if rows:
                for row, value in zip(rows, self._values(table.take(pa.array(rows))), strict=True):
                    values[row] = value
        place = table.schema.get_field_index(step.column)
        column = pa.array(values, SCHEMA.field(step.column).type)
        return table.set_column(place, SCHEMA.field(step.column), column).drop_columns(self._drop)

    def _values(self, rows: pa.Table) -> Sequence[object]:
        step = self._step
        images = [_pixels(data, step.crop) for data in rows[step.pixels].to_pylist()]
        if self._encoder is not None:
            assert step.encoder is not None
            vectors = self._encoder(images, rows["caption"].to_pylist())
            return checked_vectors(vectors, step.column, step.encoder.name)
        assert self._scorer is not None
        scores = self._scorer(images)
        if not np.isfinite(scores).all():
            assert step.scorer is not None
            raise _not_finite(f"mining.scorers.{step.column}", step.scorer.source)
        return [float(score) for score in scores]


def _pixels(data: bytes, crop: Crop) -> Pixels:
    return np.frombuffer(data, dtype=np.uint8).reshape(crop.height, crop.width, 3)


def checked_vectors(vectors: NDArray[np.float32], kind: str, name: str) -> list[bytes]:
    """Rows as fp16 bytes.

    Raises:
        InputError: If a value is NaN or infinite.
    """
    if not np.isfinite(vectors).all():
        raise _not_finite(f"mining.{kind}_encoder", name)
    return [row.tobytes() for row in vectors.astype(np.float16)]


def _not_finite(field: str, name: str) -> InputError:
    problem = "gave values that are not finite"
    return InputError(field, name, problem, "use dtype float32, or check the model's weights")
