"""Overlapping groups of similar vectors, each of bounded size.

Shapes: M vectors, n members of a group, D dimensions.
"""

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

_NEAREST_CENTROIDS = 2
_TRAIN_POINTS_PER_CENTROID = 256
_MAX_CENTROIDS = 1024  # bounds what k-means holds in memory; more groups come from further levels
_MAX_LEVELS = 4
_LEAST_PROGRESS = 0.75  # a cell that keeps more than this of its group is not worth k-means again
_ITERATIONS = 15
_CHUNK = 65_536


def partition(
    vectors: NDArray[np.float16], partition_size: int, seed: int
) -> list[NDArray[np.int32]]:
    """Overlapping groups of at most ``2 * partition_size`` similar vectors.

    That many form one group. More are clustered by spherical k-means and each vector joins its
    two nearest centroids, so that neighbours across a border still meet. A cell that is too large
    is divided again; one that k-means cannot divide, such as copies of one vector, is cut
    into pieces.

    Args:
        vectors: (M, D) unit rows; may be a memmap, of which chunks are read.
        partition_size: Vectors that a group has on average.
        seed: Seed of the sampling and of k-means.

    Returns:
        Sorted arrays of row numbers. The same on every call: one thread computes them.
    """
    everything = np.arange(len(vectors), dtype=np.int32)
    with threadpool_limits(1):
        groups = _divide(vectors, everything, partition_size, seed, level=0)
    return [group for group in groups if len(group) > 1]


def _divide(
    vectors: NDArray[np.float16],
    members: NDArray[np.int32],
    partition_size: int,
    seed: int,
    level: int,
) -> list[NDArray[np.int32]]:
    if len(members) <= 2 * partition_size:
        return [members]
    groups = []
    for cell in _cells(vectors, members, partition_size, seed):
        is_stuck = level + 1 == _MAX_LEVELS or len(cell) > _LEAST_PROGRESS * len(members)
        if is_stuck and len(cell) > 2 * partition_size:
            groups += _pieces(vectors, cell, partition_size, seed)
        else:
            groups += _divide(vectors, cell, partition_size, seed, level + 1)
    return groups


def _cells(
    vectors: NDArray[np.float16], members: NDArray[np.int32], partition_size: int, seed: int
) -> list[NDArray[np.int32]]:
    """The members by their nearest centroids."""
    import faiss  # here, so that workers that divide nothing do not load it

    wanted = -(-_NEAREST_CENTROIDS * len(members) // partition_size)
    num_centroids = max(min(wanted, _MAX_CENTROIDS, len(members) // 2), 1)
    kmeans = faiss.Kmeans(
        vectors.shape[1],
        num_centroids,
        niter=_ITERATIONS,
        spherical=True,
        seed=seed,
        min_points_per_centroid=1,
        max_points_per_centroid=_TRAIN_POINTS_PER_CENTROID,
    )
    rng = np.random.default_rng(seed)
    sample = rng.permutation(len(members))[: _TRAIN_POINTS_PER_CENTROID * num_centroids]
    kmeans.train(vectors[members[np.sort(sample)]].astype(np.float32))
    joined = min(_NEAREST_CENTROIDS, num_centroids)
    nearest = np.empty((len(members), joined), dtype=np.int32)
    for start in range(0, len(members), _CHUNK):
        part = slice(start, start + _CHUNK)
        nearest[part] = kmeans.index.search(vectors[members[part]].astype(np.float32), joined)[1]
    by_cell = np.argsort(nearest, axis=None, kind="stable")
    ends = np.cumsum(np.bincount(nearest.ravel(), minlength=num_centroids))
    return np.split(members[by_cell // joined], ends[:-1])


def _pieces(
    vectors: NDArray[np.float16], members: NDArray[np.int32], partition_size: int, seed: int
) -> list[NDArray[np.int32]]:
    """Pieces along one random direction: copies of a vector stay side by side."""
    direction = np.random.default_rng(seed).standard_normal(vectors.shape[1], np.float32)
    places = np.empty(len(members), dtype=np.float32)
    for start in range(0, len(members), _CHUNK):
        part = slice(start, start + _CHUNK)
        places[part] = vectors[members[part]].astype(np.float32) @ direction
    order = np.argsort(places, kind="stable")
    pieces = np.array_split(members[order], -(-len(members) // partition_size))
    return [np.sort(piece) for piece in pieces]
