"""Stage 5: nearest neighbours in style, exact inside overlapping partitions, on Ray tasks.

Memory is bounded by the partitions in flight: vectors are read in pieces and the lists of all
images lie in files that are mapped.

Shapes: M images, D vector, K neighbours, n members of a partition.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray

from jobs.cluster import worker_errors
from jobs.mining.config import MiningConfig
from jobs.mining.partition_search import Lists, search_partition
from jobs.mining.partitioning import partition
from jobs.progress import Progress

_CHUNK = 16_384
_MAX_RETRIES = 5  # of a task whose worker dies
_NOTHING = np.uint64(0xFFFF_FFFF_FFFF_FFFF)
_LOW = np.uint64(0xFFFF_FFFF)
_HALF = np.uint64(32)
_SIGN = np.uint32(0x8000_0000)


@dataclass(frozen=True, slots=True)
class Neighbours:
    """The K nearest of each image, nearest first; usually mapped files.

    Attributes:
        index: (M, K) int32 numbers of the neighbours, -1 where there are fewer.
        similarity: (M, K) float32 cosines, -1 where there are fewer.
    """

    index: NDArray[np.int32]
    similarity: NDArray[np.float32]

    @classmethod
    def empty(cls, folder: Path, num_images: int, num_neighbours: int) -> "Neighbours":
        """Lists of nothing, as two files in ``folder``; files of an earlier call are unlinked."""
        shape = (num_images, num_neighbours)
        return cls(
            _mapped(folder / "neighbours-index.bin", np.dtype(np.int32), shape),
            _mapped(folder / "neighbours-similarity.bin", np.dtype(np.float32), shape),
        )

    def within(self, stays: NDArray[np.bool_], folder: Path) -> "Neighbours":
        """The same for the images that ``stays`` (M,) selects, renumbered; lists get shorter.

        Args:
            stays: Which images are left.
            folder: Where the new files lie; may be that of the old ones, which stay readable.
        """
        number = np.where(stays, np.cumsum(stays) - 1, -1).astype(np.int32)
        rows = np.flatnonzero(stays)
        left = Neighbours.empty(folder, len(rows), self.index.shape[1])
        for part in _chunks(len(rows)):
            index = self.index[rows[part]]
            index = np.where(index >= 0, number[index], -1)
            order = np.argsort(index < 0, axis=1, kind="stable")
            index = np.take_along_axis(index, order, axis=1)
            similarity = np.take_along_axis(self.similarity[rows[part]], order, axis=1)
            left.index[part] = index
            left.similarity[part] = np.where(index >= 0, similarity, -1)
        return left

    def merge(self, rows: NDArray[np.int32], lists: Lists) -> None:
        """Keep the K best of what ``rows`` (n,) have and of ``lists``, in place.

        The order of calls does not matter: of two cosines of one pair the larger counts, and ties
        go to the lower number.
        """
        for part in _chunks(len(rows)):
            chosen = rows[part]
            keys = np.concatenate(
                [
                    _keys(self.index[chosen], self.similarity[chosen]),
                    _keys(lists[0][part], lists[1][part]),
                ],
                axis=1,
            )
            by_index = np.sort((keys << _HALF) | (keys >> _HALF), axis=1)
            by_index[:, 1:][by_index[:, 1:] >> _HALF == by_index[:, :-1] >> _HALF] = _NOTHING
            best = np.sort((by_index << _HALF) | (by_index >> _HALF), axis=1)
            self.index[chosen], self.similarity[chosen] = _from_keys(best[:, : self.index.shape[1]])


def search_neighbours(
    vectors: NDArray[np.float16],
    config: MiningConfig,
    scratch: Path,
    cache_uri: str,
    progress: Progress,
) -> Neighbours:
    """Find each image's nearest neighbours.

    Args:
        vectors: (M, D) unit rows; may be a memmap.
        config: Partition size, number of neighbours, workers, seed.
        scratch: Existing local folder, in which the result lies.
        cache_uri: Where finished partitions are kept, so that a killed call continues.
        progress: Told about finished partitions.

    Raises:
        InputError, OSError: If the cache cannot be read or written.
    """
    M = len(vectors)
    K = max(min(config.search.num_neighbours, M - 1), 0)
    neighbours = Neighbours.empty(scratch, M, K)
    groups = partition(vectors, config.search.partition_size, config.seed)
    for done, (members, lists) in enumerate(_searched(vectors, groups, K, config, cache_uri), 1):
        places, similarity = lists
        neighbours.merge(members, (members[places], similarity))
        progress.update("neighbours", done, len(groups))
    return neighbours


def _searched(
    vectors: NDArray[np.float16],
    groups: list[NDArray[np.int32]],
    K: int,
    config: MiningConfig,
    cache_uri: str,
) -> Iterator[tuple[NDArray[np.int32], Lists]]:
    """Yield (members, lists of places among them) as partitions are finished."""
    search = search_partition.options(
        num_cpus=config.workers.num_cpus, max_retries=_MAX_RETRIES, name="search_partition"
    )
    waiting = list(reversed(groups))
    running: dict[Any, NDArray[np.int32]] = {}
    while waiting or running:
        while waiting and len(running) < config.workers.num_search:
            members = waiting.pop()
            running[search.remote(vectors[members], K, cache_uri)] = members
        (finished,), _ = ray.wait(list(running))
        members = running.pop(finished)
        with worker_errors(OSError):
            lists = ray.get(finished)
        yield members, lists


def local_scale(neighbours: Neighbours, num_neighbours: int) -> NDArray[np.float32]:
    """(M,) mean cosine to the nearest ``num_neighbours``: high where styles are crowded."""
    scale = np.empty(len(neighbours.index), dtype=np.float32)
    for part in _chunks(len(scale)):
        nearest = neighbours.similarity[part, :num_neighbours]
        known = neighbours.index[part, :num_neighbours] >= 0
        total = np.where(known, nearest, 0).sum(axis=1)
        scale[part] = total / np.maximum(known.sum(axis=1), 1)
    return scale


def _keys(index: NDArray[np.int32], similarity: NDArray[np.float32]) -> NDArray[np.uint64]:
    """Numbers that sort by falling similarity, then by index; no neighbour sorts last."""
    bits = np.ascontiguousarray(similarity).view(np.uint32)
    falling = np.where(bits & _SIGN, bits, ~bits & ~_SIGN).astype(np.uint64)
    keys = (falling << _HALF) | index.astype(np.uint32)
    return np.where(index >= 0, keys, _NOTHING)


def _from_keys(keys: NDArray[np.uint64]) -> Lists:
    falling = (keys >> _HALF).astype(np.uint32)
    index = (keys & _LOW).astype(np.uint32).view(np.int32)
    similarity = np.where(falling & _SIGN, falling, ~falling & ~_SIGN).view(np.float32)
    return index, np.where(index >= 0, similarity, np.float32(-1))


def _chunks(count: int) -> Iterator[slice]:
    return (slice(start, start + _CHUNK) for start in range(0, count, _CHUNK))


def _mapped(path: Path, dtype: np.dtype[Any], shape: tuple[int, int]) -> NDArray[Any]:
    """A new file of -1 as an array; files cannot be mapped when they are empty."""
    path.unlink(missing_ok=True)
    if 0 in shape:
        return np.empty(shape, dtype=dtype)
    array = np.memmap(path, dtype=dtype, mode="w+", shape=shape)
    for part in _chunks(len(array)):
        array[part] = -1
    return array
