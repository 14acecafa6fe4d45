"""Stage 5: nearest neighbours in style, exact inside overlapping partitions, on Ray Data.

Shapes: M images, D vector, K neighbours, P partitions.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
import ray.data
from numpy.typing import NDArray

from jobs.mining.config import MiningConfig
from jobs.progress import Progress

_NEAREST_CENTROIDS = 2
_TRAIN_POINTS_PER_CENTROID = 256
_CHUNK = 65_536


@dataclass(frozen=True, slots=True)
class Neighbours:
    """The K nearest of each image, nearest first.

    Attributes:
        index: (M, K) int64 numbers of the neighbours, -1 where there are fewer.
        similarity: (M, K) float32 cosines, -1 where there are fewer.
    """

    index: NDArray[np.int64]
    similarity: NDArray[np.float32]

    def within(self, stays: NDArray[np.bool_]) -> "Neighbours":
        """The same for the images that ``stays`` (M,) selects, renumbered; lists get shorter."""
        number = np.where(stays, np.cumsum(stays) - 1, -1)
        index = self.index[stays]
        index = np.where(index >= 0, number[index], -1)
        order = np.argsort(index < 0, axis=1, kind="stable")
        index = np.take_along_axis(index, order, axis=1)
        similarity = np.take_along_axis(self.similarity[stays], order, axis=1)
        return Neighbours(index, np.where(index >= 0, similarity, -1).astype(np.float32))


def partition(
    vectors: NDArray[np.float16], partition_size: int, seed: int
) -> list[NDArray[np.int64]]:
    """Overlapping groups of similar images.

    Up to twice ``partition_size`` images form one group. More are clustered by spherical k-means
    and each image joins its two nearest centroids, so that neighbours across a border still meet.

    Returns:
        P sorted arrays of row numbers.
    """
    M = len(vectors)
    if 2 * partition_size >= M:
        return [np.arange(M)]
    import faiss  # here, so that workers that search nothing do not load it

    num_centroids = -(-_NEAREST_CENTROIDS * M // partition_size)
    kmeans = faiss.Kmeans(
        vectors.shape[1],
        num_centroids,
        niter=15,
        spherical=True,
        seed=seed,
        max_points_per_centroid=_TRAIN_POINTS_PER_CENTROID,
    )
    rng = np.random.default_rng(seed)
    sample = np.sort(rng.permutation(M)[: _TRAIN_POINTS_PER_CENTROID * num_centroids])
    kmeans.train(vectors[sample].astype(np.float32))
    chunks = (vectors[start : start + _CHUNK] for start in range(0, M, _CHUNK))
    nearest = np.concatenate(
        [kmeans.index.search(c.astype(np.float32), _NEAREST_CENTROIDS)[1] for c in chunks]
    )
    groups = [np.flatnonzero((nearest == k).any(axis=1)) for k in range(num_centroids)]
    return [group for group in groups if len(group) > 1]


class PartitionSearch:
    """Ray Data actor: exact neighbours of the members of one partition among themselves."""

    def __init__(self, vectors: "ray.ObjectRef[Any]", num_neighbours: int) -> None:
        self._vectors: NDArray[np.float16] = ray.get(vectors)
        self._num_neighbours = num_neighbours

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """{"members": lists of row numbers} → the same with neighbour lists as bytes."""
        found = [
            nearest_in(self._vectors, np.asarray(members), self._num_neighbours)
            for members in batch["members"]
        ]
        return {
            "members": batch["members"],
            "index": np.array([index.tobytes() for index, _ in found], dtype=object),
            "similarity": np.array([sim.tobytes() for _, sim in found], dtype=object),
        }


def nearest_in(
    vectors: NDArray[np.float16], members: NDArray[np.int64], num_neighbours: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Exact neighbours of ``members`` (row numbers of ``vectors``) among themselves."""
    import faiss

    chosen = vectors[members].astype(np.float32)
    index = faiss.IndexFlatIP(chosen.shape[1])
    index.add(chosen)
    similarity, found = index.search(chosen, min(num_neighbours + 1, len(members)))
    return drop_self(np.where(found >= 0, members[found], -1), similarity, members)


def drop_self(
    index: NDArray[np.int64], similarity: NDArray[np.float32], rows: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Remove each row from its own neighbour list; a list without it loses its last entry."""
    is_self = index == rows[:, None]
    is_self[~is_self.any(axis=1), -1] = True
    shape = (len(index), index.shape[1] - 1)
    return index[~is_self].reshape(shape), similarity[~is_self].reshape(shape)


def search_neighbours(
    vectors: NDArray[np.float16], config: MiningConfig, progress: Progress
) -> Neighbours:
    """Find each image's nearest neighbours.

    Args:
        vectors: (M, D) unit rows.
        config: Partition size, number of neighbours, workers.
        progress: Told about finished partitions.
    """
    M = len(vectors)
    K = min(config.search.num_neighbours, M - 1)
    groups = partition(vectors, config.search.partition_size, config.seed)
    if len(groups) == 1:
        index, similarity = nearest_in(vectors, groups[0], K)
        progress.update("neighbours", 1, 1)
        return Neighbours(index, similarity)
    index = np.full((M, K), -1, dtype=np.int64)
    similarity = np.full((M, K), -1, dtype=np.float32)
    shared = ray.put(vectors)
    dataset = ray.data.from_items(
        [{"members": group} for group in groups], override_num_blocks=len(groups)
    ).map_batches(
        PartitionSearch,
        fn_constructor_args=(shared, K),
        batch_size=1,
        num_cpus=config.workers.num_cpus,
        compute=ray.data.ActorPoolStrategy(size=config.workers.num_search),
    )
    for done, row in enumerate(dataset.iter_rows(), start=1):
        members = np.asarray(row["members"])
        found = np.frombuffer(row["index"], dtype=np.int64).reshape(len(members), -1)
        scores = np.frombuffer(row["similarity"], dtype=np.float32).reshape(len(members), -1)
        _merge(index, similarity, members, found, scores)
        progress.update("neighbours", done, len(groups))
    return Neighbours(index, similarity)


def _merge(
    index: NDArray[np.int64],
    similarity: NDArray[np.float32],
    rows: NDArray[np.int64],
    found: NDArray[np.int64],
    scores: NDArray[np.float32],
) -> None:
    """Merge new neighbours of ``rows`` into the K best, in place; ties go to the lower number."""
    K = index.shape[1]
    all_index = np.concatenate([index[rows], found], axis=1)
    all_scores = np.concatenate([similarity[rows], scores], axis=1)
    order = np.lexsort((all_index, -all_scores), axis=1)
    all_index = np.take_along_axis(all_index, order, axis=1)
    all_scores = np.take_along_axis(all_scores, order, axis=1)
    for row, candidates, values in zip(rows, all_index, all_scores, strict=True):
        _, first = np.unique(candidates, return_index=True)
        keep = np.sort(first[candidates[first] >= 0])[:K]
        index[row], similarity[row] = -1, -1
        index[row, : len(keep)], similarity[row, : len(keep)] = candidates[keep], values[keep]


def local_scale(neighbours: Neighbours, num_neighbours: int) -> NDArray[np.float32]:
    """(M,) mean cosine to the nearest ``num_neighbours``: high where styles are crowded."""
    nearest = neighbours.similarity[:, :num_neighbours]
    known = neighbours.index[:, :num_neighbours] >= 0
    total = np.where(known, nearest, 0).sum(axis=1)
    scale: NDArray[np.float32] = (total / np.maximum(known.sum(axis=1), 1)).astype(np.float32)
    return scale
