"""Caps over all styles: how many pairs there are in all, and how many one source may have."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from jobs.mining.pair import Pair


def within_total(
    pairs: Sequence[Pair], sizes: NDArray[np.integer], max_pairs: int | None, seed: int
) -> list[Pair]:
    """At most ``max_pairs`` pairs; styles get shares by the square root of their size.

    Args:
        pairs: Sorted.
        sizes: Images of each style.
        max_pairs: None for no cap.
        seed: Of the drawing inside a style.
    """
    if max_pairs is None or len(pairs) <= max_pairs:
        return list(pairs)
    styles = np.array([pair.style for pair in pairs])
    available = np.bincount(styles, minlength=len(sizes))
    quota = _quotas(np.sqrt(sizes) * (available > 0), available, max_pairs)
    order = np.random.default_rng(seed).permutation(len(pairs))
    order = order[np.argsort(styles[order], kind="stable")]
    start = np.cumsum(available) - available
    chosen = np.arange(len(pairs)) - start[styles[order]] < quota[styles[order]]
    return [pairs[number] for number in np.sort(order[chosen]).tolist()]


def _quotas(
    weight: NDArray[np.floating], available: NDArray[np.int64], total: int
) -> NDArray[np.int64]:
    """Whole shares of ``total`` by weight, none above what is available."""
    ceiling, low, high = available.astype(np.float64), 0.0, float(available.max() + 1)
    for _ in range(60):  # the factor that spends the total, by bisection
        factor = (low + high) / 2
        spent = np.minimum(weight * factor, ceiling).sum()
        low, high = (factor, high) if spent < total else (low, factor)
    share = np.minimum(weight * low, ceiling)
    quota: NDArray[np.int64] = np.floor(share).astype(np.int64)
    largest = np.argsort(-(share - quota), kind="stable")[: total - int(quota.sum())]
    quota[largest] += quota[largest] < available[largest]
    return quota


def within_sources(
    pairs: Sequence[Pair], sources: NDArray[np.uint64], max_share: float, seed: int
) -> list[Pair]:
    """Pairs such that no source has more than its share of those that are given.

    Args:
        pairs: Sorted.
        sources: (M,) hash of each image's source, 0 for unknown.
        max_share: Of the pairs; of S sources never less than 1 / S.
        seed: Of the order in which pairs are taken.
    """
    of_pair = [np.unique(sources[[pair.target, *pair.refs]]) for pair in pairs]
    of_pair = [found[found != 0] for found in of_pair]
    known = {source for found in of_pair for source in found.tolist()}
    if not known:
        return list(pairs)
    limit = max(1, int(max(max_share, 1 / len(known)) * len(pairs)))
    uses = dict.fromkeys(known, 0)
    taken = []
    for number in np.random.default_rng(seed).permutation(len(pairs)).tolist():
        shown = of_pair[number].tolist()
        if all(uses[source] < limit for source in shown):
            taken.append(number)
            for source in shown:
                uses[source] += 1
    return [pairs[number] for number in sorted(taken)]
