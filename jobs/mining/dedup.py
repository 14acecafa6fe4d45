"""Stage 4: the same picture twice. Of each group the largest, then the first, stays."""

import numpy as np
from numpy.typing import NDArray

from jobs.mining.config import DedupConfig
from jobs.mining.features import Samples
from jobs.mining.hashing import NUM_BITS, hamming
from jobs.mining.neighbours import Neighbours

_WINDOW = 256  # within one bucket, hashes are compared with this many followers
_NEAR_CANDIDATES = 32


def drop_copies(samples: Samples, config: DedupConfig) -> None:
    """Drop equal files ("duplicate_file") and equal pictures ("duplicate_picture"), in place."""
    order = _by_size(samples, samples.embedded)
    seen: set[str] = set()
    for i in order:
        if samples.reason[i]:
            continue
        if samples.sha256[i] in seen:
            samples.reason[i] = "duplicate_file"
        seen.add(samples.sha256[i])
    kept = np.array([i for i in order if not samples.reason[i]], dtype=np.int64)
    thumbnails = np.array(
        [np.frombuffer(samples.thumbnail[i], dtype=np.uint8) for i in kept], dtype=np.int16
    )
    for first, second in hash_matches(samples.phash[kept], config.max_hamming):
        if samples.reason[kept[first]]:
            continue
        difference = np.abs(thumbnails[first] - thumbnails[second]).mean()
        if difference <= config.max_thumbnail_difference and not samples.reason[kept[second]]:
            samples.reason[kept[second]] = "duplicate_picture"


def drop_near_duplicates(
    samples: Samples,
    rows: NDArray[np.int64],
    neighbours: Neighbours,
    content: NDArray[np.float32],
    config: DedupConfig,
) -> NDArray[np.bool_]:
    """Drop pictures alike in style and content ("near_duplicate"), in place.

    Args:
        samples: All samples.
        rows: (M,) row numbers of the pictures that ``neighbours`` and ``content`` speak of.
        neighbours: Nearest in style.
        content: (M, D) content vectors.
        config: Thresholds.

    Returns:
        (M,) whether a picture stays.
    """
    stays = np.ones(len(rows), dtype=bool)
    rank = _rank(samples, rows)
    width = min(_NEAR_CANDIDATES, neighbours.index.shape[1])
    close = neighbours.similarity[:, :width] >= config.style_similarity
    first, place = np.nonzero(close & (neighbours.index[:, :width] >= 0))
    second = neighbours.index[first, place]
    alike = np.einsum("md,md->m", content[first], content[second]) >= config.content_similarity
    pairs = [(int(a), int(b)) for a, b in zip(first[alike], second[alike], strict=True)]
    ranked = {(min(rank[a], rank[b]), max(rank[a], rank[b])) for a, b in pairs}
    at_rank = np.argsort(rank)
    for better, worse in sorted(ranked):
        if stays[at_rank[better]] and stays[at_rank[worse]]:
            stays[at_rank[worse]] = False
            samples.reason[rows[at_rank[worse]]] = "near_duplicate"
    return stays


def hash_matches(hashes: NDArray[np.uint64], max_hamming: int) -> list[tuple[int, int]]:
    """Pairs (first < second) of at most ``max_hamming`` differing bits, sorted.

    Hashes that differ in k bits agree in at least one of k + 1 bands, so only hashes that share a
    band are compared.
    """
    matches: set[tuple[int, int]] = set()
    bands = np.array_split(np.arange(NUM_BITS), max_hamming + 1)
    for band in bands:
        mask = np.uint64(sum(1 << int(bit) for bit in band))
        keys = hashes & mask
        order = np.argsort(keys, kind="stable")
        for step in range(1, min(_WINDOW, len(order))):
            left, right = order[:-step], order[step:]
            same = keys[left] == keys[right]
            if not same.any():
                break
            left, right = left[same], right[same]
            near = hamming(hashes[left], hashes[right]) <= max_hamming
            matches.update(
                (int(min(a, b)), int(max(a, b)))
                for a, b in zip(left[near], right[near], strict=True)
            )
    return sorted(matches)


def _by_size(samples: Samples, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rows from the largest picture to the smallest; equal ones in input order."""
    area = samples.size[rows].prod(axis=1)
    return rows[np.argsort(-area, kind="stable")]


def _rank(samples: Samples, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    area = samples.size[rows].prod(axis=1)
    rank = np.empty(len(rows), dtype=np.int64)
    rank[np.argsort(-area, kind="stable")] = np.arange(len(rows))
    return rank
