"""The memory of a mining output: which split and style each image once had.

New shards extend a set of pairs: an image keeps its split for good, and a style its id. Entries
are never changed, so that a run with the ledger that it wrote itself gives the same result.

Shapes: L entries, M images.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from i2l_model.errors import InputError
from jobs import storage
from jobs.mining.config import SplitConfig
from jobs.provenance import config_hash

logger = logging.getLogger(__name__)

FILE_NAME = "ledger.parquet"
SPLITS = ("train", "val", "test")
_SETTINGS = b"split_settings"
_SHA_BYTES = 16
_WORDS = pa.dictionary(pa.int32(), pa.string())
_SCHEMA = pa.schema([("sha256", pa.binary(_SHA_BYTES)), ("style_id", _WORDS), ("split", _WORDS)])


@dataclass(frozen=True, slots=True)
class Ledger:
    """Entries in the order of their hashes.

    Attributes:
        settings: Hash of the split settings under which entries were made.
        sha: (L,) first 16 bytes of each image's sha256.
        style: (L,) places in ``style_ids``.
        split: (L,) places in ``SPLITS``.
        style_ids: The styles.
    """

    settings: str
    sha: NDArray[np.bytes_]
    style: NDArray[np.int32]
    split: NDArray[np.int8]
    style_ids: Sequence[str]

    @classmethod
    def empty(cls, config: SplitConfig) -> "Ledger":
        """A ledger without entries."""
        none = np.zeros(0, np.int32)
        return cls(config_hash(config), _keys(np.zeros((0, 2))), none, none.astype(np.int8), ())

    @classmethod
    def load(cls, output_uri: str, config: SplitConfig) -> "Ledger":
        """Read that of an output; empty without one, or when it was made by other settings.

        Raises:
            InputError: If it cannot be read.
        """
        uri = storage.join_uri(output_uri, FILE_NAME)
        if not storage.exists(uri):
            return cls.empty(config)
        data = storage.read_bytes(uri)
        try:
            ledger = _parsed(data)
        except (pa.ArrowException, OSError, KeyError, ValueError) as error:
            fix = "restore it, or mine into an empty folder"
            raise InputError("output", uri, "is no ledger of splits", fix) from error
        if ledger.settings != config_hash(config):
            logger.warning("mining.split changed: %s is begun anew, splits are drawn again", uri)
            return cls.empty(config)
        return ledger

    def __len__(self) -> int:
        return len(self.sha)

    def find(self, sha: NDArray[np.uint64]) -> NDArray[np.int64]:
        """(M,) entry of each image, -1 without one; ``sha`` (M, 2)."""
        if not len(self):
            return np.full(len(sha), -1)
        keys = _keys(sha)
        place = np.minimum(np.searchsorted(self.sha, keys), len(self) - 1)
        return np.where(self.sha[place] == keys, place, -1)

    def extended(
        self,
        members: Mapping[str, NDArray[np.int64]],
        splits: Mapping[str, str],
        sha: NDArray[np.uint64],
    ) -> "Ledger":
        """With the images of the styles that have a split; entries that are there stay.

        Args:
            members: Images by style id.
            splits: Split by style id.
            sha: (M, 2) hashes of the images.
        """
        fresh = {
            name: images[self.find(sha[images]) < 0]
            for name, images in sorted(members.items())
            if name in splits
        }
        names = [name for name, images in fresh.items() if len(images)]
        style_ids = sorted({*self.style_ids, *names})
        place = {name: number for number, name in enumerate(style_ids)}
        renumbered = np.array([place[name] for name in self.style_ids], np.int32)
        images = np.concatenate([np.zeros(0, np.int64), *(fresh[name] for name in names)])
        sizes = [len(fresh[name]) for name in names]
        style = np.repeat(np.array([place[name] for name in names], np.int32), sizes)
        split = np.repeat(np.array([SPLITS.index(splits[n]) for n in names], np.int8), sizes)
        keys, first = np.unique(np.concatenate([self.sha, _keys(sha[images])]), return_index=True)
        return Ledger(
            self.settings,
            keys,
            np.concatenate([renumbered[self.style], style])[first],
            np.concatenate([self.split, split])[first],
            style_ids,
        )

    def save(self, output_uri: str) -> None:
        """Write ``ledger.parquet``; equal entries give equal bytes."""
        sha = pa.py_buffer(self.sha.tobytes())
        columns = [
            pa.FixedSizeBinaryArray.from_buffers(_SCHEMA.types[0], len(self), [None, sha]),
            pa.DictionaryArray.from_arrays(self.style, pa.array(self.style_ids, pa.string())),
            pa.DictionaryArray.from_arrays(self.split.astype(np.int32), pa.array(SPLITS)),
        ]
        table = pa.table(columns, schema=_SCHEMA.with_metadata({_SETTINGS: self.settings}))
        with storage.open_write(storage.join_uri(output_uri, FILE_NAME)) as stream:
            pq.write_table(table, stream, compression="zstd", write_page_checksum=True)


def _parsed(data: bytes) -> Ledger:
    """The ledger in a file's bytes; of what is none, any of the errors that ``load`` names."""
    table = pq.read_table(pa.BufferReader(data), page_checksum_verification=True)
    if not table.schema.equals(_SCHEMA) or any(c.null_count for c in table.columns):
        raise ValueError("other columns")
    sha, style, split = (c.unify_dictionaries().combine_chunks() for c in table.columns)
    keys = np.frombuffer(sha.buffers()[1] or b"", f"S{_SHA_BYTES}", count=len(sha))
    if (keys[1:] <= keys[:-1]).any():
        raise ValueError("entries out of order")
    places = np.array([SPLITS.index(name) for name in split.dictionary.to_pylist()], np.int8)
    return Ledger(
        (table.schema.metadata or {})[_SETTINGS].decode(),
        keys,
        style.indices.to_numpy(),
        places[split.indices.to_numpy()],
        style.dictionary.to_pylist(),
    )


def _keys(sha: NDArray[np.generic]) -> NDArray[np.bytes_]:
    """(M, 2) numbers → (M,) strings of 16 bytes that sort in the same order."""
    keys: NDArray[np.bytes_] = np.frombuffer(
        sha.astype(">u8").tobytes(), f"S{_SHA_BYTES}", count=len(sha)
    )
    return keys
