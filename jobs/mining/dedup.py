"""Stage 4: the same picture twice. Of each group the largest, then the first, stays."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from jobs.mining.config import DedupConfig
from jobs.mining.hashing import NUM_BITS, hamming
from jobs.mining.neighbours import Neighbours
from jobs.mining.samples import Samples

_WINDOW = 256  # within one bucket, hashes are compared with this many followers
_MAX_LEADERS = 32  # pictures of one hash but other colours that are told apart
_NEAR_CANDIDATES = 32
_ROWS = 16_384


def drop_copies(samples: Samples, config: DedupConfig) -> None:
    """Drop equal files ("duplicate_file") and equal pictures ("duplicate_picture"), in place."""
    rows = _by_size(samples)
    _, first = np.unique(samples.sha[rows], axis=0, return_index=True)
    samples.drop(np.delete(rows, first), "duplicate_file")
    rows = rows[np.sort(first)]
    thumbnails = _Thumbnails(samples, _sharing_a_band(samples.phash, rows, config.max_hamming))
    limit = config.max_thumbnail_difference
    rows = _drop_equal_hashes(samples, rows, thumbnails, limit)
    for pair in hash_matches(samples.phash[rows], config.max_hamming):
        better, worse = rows[pair]
        if samples.reason[better] or samples.reason[worse]:
            continue
        if thumbnails.difference(better, rows[pair[1:]])[0] <= limit:
            samples.drop(rows[pair[1:]], "duplicate_picture")


def drop_near_duplicates(
    samples: Samples,
    rows: NDArray[np.int64],
    neighbours: Neighbours,
    content: NDArray[np.float16],
    config: DedupConfig,
) -> NDArray[np.bool_]:
    """Drop pictures alike in style and content ("near_duplicate"), in place.

    Args:
        samples: All samples.
        rows: (M,) row numbers of the pictures that ``neighbours`` and ``content`` speak of.
        neighbours: Nearest in style.
        content: (M, D) content vectors; may be a memmap.
        config: Thresholds.

    Returns:
        (M,) whether a picture stays.
    """
    stays = np.ones(len(rows), dtype=bool)
    rank = np.empty(len(rows), dtype=np.int64)
    at_rank = np.argsort(-samples.area[rows], kind="stable")
    rank[at_rank] = np.arange(len(rows))
    found = [rank[pairs] for pairs in _alike(neighbours, content, config)]
    ranked = np.concatenate([np.zeros((0, 2), np.int64), *found])
    for better, worse in np.unique(np.sort(ranked, axis=1), axis=0).tolist():
        if stays[at_rank[better]] and stays[at_rank[worse]]:
            stays[at_rank[worse]] = False
    samples.drop(rows[~stays], "near_duplicate")
    return stays


def hash_matches(hashes: NDArray[np.uint64], max_hamming: int) -> NDArray[np.int64]:
    """Pairs (P, 2), first < second, of at most ``max_hamming`` differing bits, sorted.

    Hashes that differ in k bits agree in at least one of k + 1 bands, so only hashes that share a
    band are compared.
    """
    matches = [np.zeros((0, 2), np.int64)]
    for mask in _bands(max_hamming):
        order = np.argsort(hashes & mask, kind="stable")
        keys = hashes[order] & mask
        for step in range(1, min(_WINDOW, len(order))):
            places = np.flatnonzero(keys[:-step] == keys[step:])
            if not len(places):
                break
            ends = np.stack([order[places], order[places + step]], axis=1)
            near = hamming(hashes[ends[:, 0]], hashes[ends[:, 1]]) <= max_hamming
            matches.append(np.sort(ends[near], axis=1))
    return np.unique(np.concatenate(matches), axis=0)


class _Thumbnails:
    """Thumbnails (8 × 8 × 3 bytes) of the rows that may have to be compared."""

    def __init__(self, samples: Samples, rows: NDArray[np.int64]) -> None:
        self._rows = np.sort(rows)
        self._pixels = np.zeros((len(rows), 192), np.uint8)
        for place, values in enumerate(samples.read(self._rows, ["thumbnail"])):
            self._pixels[place] = np.frombuffer(values["thumbnail"], np.uint8)

    def difference(self, row: int, others: NDArray[np.int64]) -> NDArray[np.float64]:
        """Mean difference in grey levels of one row to others."""
        mine, theirs = (self._pixels[np.searchsorted(self._rows, r)] for r in (row, others))
        apart: NDArray[np.float64] = np.abs(theirs.astype(np.int16) - mine).mean(axis=-1)
        return apart


def _sharing_a_band(
    hashes: NDArray[np.uint64], rows: NDArray[np.int64], max_hamming: int
) -> NDArray[np.int64]:
    """Those of ``rows`` whose hash is near that of another one."""
    different, place, count = np.unique(hashes[rows], return_inverse=True, return_counts=True)
    shared = count > 1
    shared[hash_matches(different, max_hamming).ravel()] = True
    return rows[shared[place]]


def _drop_equal_hashes(
    samples: Samples, rows: NDArray[np.int64], thumbnails: _Thumbnails, limit: float
) -> NDArray[np.int64]:
    """Compare pictures of one hash with a few of them each; rows that stay, in their order.

    Blank pictures and the like come by the thousands, too many to compare all with all.
    """
    _, group, size = np.unique(samples.phash[rows], return_inverse=True, return_counts=True)
    by_group = np.split(np.argsort(group, kind="stable"), np.cumsum(size)[:-1])
    for places in (p for p in by_group if len(p) > 1):
        others = rows[places]
        for _ in range(_MAX_LEADERS):
            alike = thumbnails.difference(others[0], others) <= limit
            samples.drop(others[1:][alike[1:]], "duplicate_picture")
            others = others[~alike]
            if len(others) < 2:
                break
    left: NDArray[np.int64] = rows[samples.is_kept()[rows]]
    return left


def _alike(
    neighbours: Neighbours, content: NDArray[np.float16], config: DedupConfig
) -> Iterator[NDArray[np.int64]]:
    """Pairs (P, 2) alike in style and content, chunk by chunk."""
    width = min(_NEAR_CANDIDATES, neighbours.index.shape[1])
    for start in range(0, len(neighbours.index), _ROWS):
        index = np.asarray(neighbours.index[start : start + _ROWS, :width])
        close = neighbours.similarity[start : start + _ROWS, :width] >= config.style_similarity
        rows, places = np.nonzero(close & (index >= 0))
        for at in range(0, len(rows), _ROWS):
            part = slice(at, at + _ROWS)
            first, second = rows[part] + start, index[rows[part], places[part]].astype(np.int64)
            a, b = (content[ends].astype(np.float32) for ends in (first, second))
            alike = np.einsum("md,md->m", a, b) >= config.content_similarity
            yield np.stack([first[alike], second[alike]], axis=1)


def _bands(max_hamming: int) -> Iterator[np.uint64]:
    for band in np.array_split(np.arange(NUM_BITS), max_hamming + 1):
        yield np.uint64(sum(1 << int(bit) for bit in band))


def _by_size(samples: Samples) -> NDArray[np.int64]:
    """Kept rows from the largest picture to the smallest; equal ones in input order."""
    rows = np.flatnonzero(samples.is_kept())
    return rows[np.argsort(-samples.area[rows], kind="stable")]
