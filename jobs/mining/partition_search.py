"""Exact nearest neighbours inside one partition, kept in a cache named after its vectors.

Shapes: n members of the partition, D dimensions, K neighbours.
"""

import hashlib
import io
import logging

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from jobs import storage

logger = logging.getLogger(__name__)

Lists = tuple[NDArray[np.int32], NDArray[np.float32]]

_VERSION = 1  # raise it when the same vectors would give other lists
_ROWS = 512


@ray.remote
def search_partition(vectors: NDArray[np.float16], num_neighbours: int, cache_uri: str) -> Lists:
    """Neighbour lists of one partition, from the cache if a call has left them there.

    The lists name places in the partition, not in the corpus, so they hold wherever the same
    vectors come together again.
    """
    name = hashlib.sha256(f"{_VERSION} {num_neighbours} {vectors.shape}".encode())
    name.update(np.ascontiguousarray(vectors).view(np.uint8).data)
    uri = storage.join_uri(cache_uri, f"{name.hexdigest()[:32]}.parquet")
    shape = (len(vectors), min(num_neighbours, len(vectors) - 1))
    lists = _read(uri, shape) if storage.exists(uri) else None
    if lists is None:
        lists = nearest_in(vectors, num_neighbours)
        _write(uri, lists)
    return lists


def nearest_in(vectors: NDArray[np.float16], num_neighbours: int) -> Lists:
    """Exact neighbours of unit rows among themselves, nearest first, ties by place.

    Args:
        vectors: (n, D) unit rows.
        num_neighbours: K; fewer where there are fewer other rows.

    Returns:
        (n, K) places and cosines.
    """
    n, K = len(vectors), min(num_neighbours, len(vectors) - 1)
    index = np.empty((n, K), dtype=np.int32)
    similarity = np.empty((n, K), dtype=np.float32)
    if K == 0:
        return index, similarity
    rows = vectors.astype(np.float32)
    with threadpool_limits(1):  # with more, sums could be ordered otherwise
        for start in range(0, n, _ROWS):
            part = slice(start, start + _ROWS)
            scores = rows[part] @ rows.T
            scores[np.arange(len(scores)), np.arange(start, start + len(scores))] = -np.inf
            index[part], similarity[part] = _largest(scores, K)
    return index, similarity


def _largest(scores: NDArray[np.float32], K: int) -> Lists:
    """Columns and values of the K largest of each row, ties to the lower column."""
    limit = np.partition(scores, -K, axis=1)[:, -K, None]
    chosen = scores >= limit
    crowded = np.flatnonzero(chosen.sum(axis=1) > K)  # several share the last place
    above, level = scores[crowded] > limit[crowded], scores[crowded] == limit[crowded]
    room = K - above.sum(axis=1, keepdims=True)
    chosen[crowded] = above | (level & (level.cumsum(axis=1, dtype=np.int32) <= room))
    columns = np.nonzero(chosen)[1].reshape(len(scores), K)
    values = np.take_along_axis(scores, columns, axis=1)
    order = np.argsort(-values, axis=1, kind="stable")
    columns = np.take_along_axis(columns, order, axis=1)
    return columns.astype(np.int32), np.take_along_axis(values, order, axis=1)


def _write(uri: str, lists: Lists) -> None:
    index, similarity = lists
    table = pa.table({"index": index.ravel(), "similarity": similarity.ravel()})
    with storage.open_write(uri) as stream:
        pq.write_table(
            table,
            stream,
            compression="zstd",
            use_dictionary=False,
            use_byte_stream_split=True,  # half the size of the lists
            write_page_checksum=True,
        )


def _read(uri: str, shape: tuple[int, int]) -> Lists | None:
    """The lists in a file, or None if they are not whole."""
    data = io.BytesIO(storage.read_bytes(uri))
    try:
        table = pq.read_table(data, page_checksum_verification=True)
        index = table["index"].to_numpy().astype(np.int32).reshape(shape)
        similarity = table["similarity"].to_numpy().astype(np.float32).reshape(shape)
        if index.size and not 0 <= index.min() <= index.max() < len(index):
            raise ValueError("a place lies outside of the partition")
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        logger.warning("%s is damaged (%s); the partition is searched again", uri, error)
        return None
    return index, similarity
