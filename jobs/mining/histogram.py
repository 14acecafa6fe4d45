"""Histograms and quantiles as they stand in ``report.json``."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

_DECIMALS = 6
_QUANTILES = (5, 25, 50, 75, 95)
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts in bins of equal width from ``low`` to ``high``; several series share the bins."""

    low: float
    high: float
    counts: dict[str, list[int]]

    @property
    def num_bins(self) -> int:
        """Bins of each series."""
        return len(next(iter(self.counts.values()), []))

    @property
    def total(self) -> int:
        """Values of all series."""
        return sum(sum(counts) for counts in self.counts.values())

    def as_json(self) -> dict[str, Any]:
        """The fields as a dictionary."""
        return asdict(self)


def histogram(
    series: dict[str, ArrayLike],
    *,
    num_bins: int = 40,
    low: float | None = None,
    high: float | None = None,
) -> Histogram:
    """Count the finite values of each series, in pieces, so that long series need no copy.

    Args:
        series: Name → values.
        num_bins: Bins over the whole range.
        low: Beginning of the first bin; the least value by default. Lesser values count there.
        high: End of the last bin; the greatest value by default. Greater values count there.
    """
    ends = [(p.min(), p.max()) for values in series.values() for p in _pieces(values)]
    if low is None:
        low = min((float(least) for least, _ in ends), default=0.0)
    if high is None:
        high = max((float(greatest) for _, greatest in ends), default=1.0)
    low, high = round(low, _DECIMALS), round(high, _DECIMALS)
    if high <= low:
        high = low + 1.0
    edges = np.linspace(low, high, num_bins + 1)
    counts = {}
    for name, values in series.items():
        total = np.zeros(num_bins, dtype=np.int64)
        for piece in _pieces(values):
            total += np.histogram(np.clip(piece, low, high), edges)[0]
        counts[name] = total.tolist()
    return Histogram(low, high, counts)


def quantiles(values: ArrayLike) -> dict[str, float]:
    """``q05`` to ``q95`` of the finite values; {} without any."""
    array = np.asarray(values)
    finite = array[np.isfinite(array)]
    if not len(finite):
        return {}
    found = np.quantile(finite, [q / 100 for q in _QUANTILES])
    return {f"q{q:02d}": round(float(v), 4) for q, v in zip(_QUANTILES, found, strict=True)}


def _pieces(values: ArrayLike) -> Iterator[NDArray[np.float64]]:
    """The finite values, piece by piece, none of them empty."""
    array = np.asarray(values).ravel()
    for start in range(0, len(array), _CHUNK):
        piece = array[start : start + _CHUNK].astype(np.float64)
        piece = piece[np.isfinite(piece)]
        if len(piece):
            yield piece
