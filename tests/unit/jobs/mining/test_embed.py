"""Vectors on their way into a column."""

import numpy as np
import pytest

from i2l_model.errors import InputError
from jobs.mining.embed import checked_vectors


def test_rows_become_half_precision_bytes() -> None:
    (row,) = checked_vectors(np.array([[0.6, 0.8]], dtype=np.float32), "style", "csd")
    assert np.frombuffer(row, dtype=np.float16) == pytest.approx([0.6, 0.8], abs=1e-3)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_names_the_encoder(value: float) -> None:
    vectors = np.array([[0.6, 0.8], [value, 0]], dtype=np.float32)
    with pytest.raises(InputError, match=r"mining\.style_encoder \(csd\) .* not finite"):
        checked_vectors(vectors, "style", "csd")
