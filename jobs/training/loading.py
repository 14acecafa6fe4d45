"""From the rows of a batch to tensors: image bytes out of the shards, or cached encodings.

Nothing here needs the backbone or a GPU, so that it runs ahead of the training, on any node.
"""

# N styles, K targets a style, M present references, T tokens, E features, S pixels

import logging
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import numpy as np
import torch

from i2l_model.images import decode_image, fit
from jobs import storage
from jobs.training.buckets import Buckets
from jobs.training.pair_index import ImagePlaces, PairIndex
from jobs.training.patience import patiently
from jobs.training.row_files import RowReader
from jobs.training.sampling import StyleBatch

logger = logging.getLogger(__name__)

_THREADS = 8  # of one loader

Loaded = dict[str, torch.Tensor]
"""A batch on the CPU.

- ``ref_images`` (M, 3, S, S) uint8, or ``ref_tokens.I`` (M, T, E) of each frozen encoder
- ``targets.N`` of each style: latents (K, C, h, w) float32, or pixels (K, 3, H, W) uint8
- ``prompts.B`` of each target, where they are cached
"""

LATENTS, PROMPTS, TOKENS = "latents", "prompts", "tokens"

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class BatchLoader:
    """Loads batches of one split; waits for storage that is away.

    Args:
        index: The pairs.
        sizes: "ref_size" and "target_size", sides in pixels, as `open_loader` takes them.
        buckets: Sizes of the targets.
        cached: Readers of what is cached, by kind.
        patience_s: How long to wait, in seconds.
    """

    def __init__(
        self,
        index: PairIndex,
        sizes: dict[str, int],
        buckets: Buckets,
        cached: dict[str, RowReader],
        patience_s: float = 0.0,
    ) -> None:
        self.index = index
        self.cached = cached
        self.sizes = sizes
        self.buckets = buckets
        self._patience_s = patience_s
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="load")

    def load(self, batch: StyleBatch) -> Loaded:
        """Read what a batch needs."""
        refs_M = batch.refs_NF[batch.present]
        loaded = self._references(refs_M.tolist())
        for n, rows_K in enumerate(batch.targets_NK):
            loaded[f"targets.{n}"] = self._targets(rows_K.tolist())
        if PROMPTS in self.cached:
            rows_B = self.index.target_prompts_U[batch.targets_NK.reshape(-1)]
            embeds = self._map(self.cached[PROMPTS].read, rows_B.tolist())
            loaded |= {f"prompts.{b}": embed for b, embed in enumerate(embeds)}
        return loaded

    def _references(self, rows: list[int]) -> Loaded:
        if TOKENS not in self.cached:
            return {"ref_images": self.ref_images(rows)}
        reader = self.cached[TOKENS]
        return {
            f"ref_tokens.{part}": torch.stack(self._map(partial(reader.read, part=part), rows))
            for part in range(reader.files.num_parts)
        }

    def _targets(self, rows: list[int]) -> torch.Tensor:
        if LATENTS not in self.cached:
            return self.target_images(rows)
        return torch.stack(self._map(self.cached[LATENTS].read, rows))

    def by_bucket(
        self, targets: Sequence[int], names: Sequence[int] | None = None
    ) -> list[list[int]]:
        """The targets of each size, or what stands for them in ``names``."""
        members: dict[int, list[int]] = {}
        for row, name in zip(targets, targets if names is None else names, strict=True):
            members.setdefault(int(self.buckets.numbers_U[row]), []).append(name)
        return list(members.values())

    def ref_images(self, rows: Sequence[int]) -> torch.Tensor:
        """Pixels (M, 3, S, S) uint8 of reference rows."""
        size = (self.sizes["ref_size"], self.sizes["ref_size"])
        return self._images(self.index.refs, rows, [size] * len(rows))

    def target_images(self, rows: Sequence[int]) -> torch.Tensor:
        """Pixels (K, 3, H, W) uint8 of target rows, all of one bucket."""
        return self._images(self.index.targets, rows, [self.buckets.size(row) for row in rows])

    def _images(
        self, places: ImagePlaces, rows: Sequence[int], sizes: Sequence[tuple[int, int]]
    ) -> torch.Tensor:
        def pixels(item: tuple[int, tuple[int, int]]) -> torch.Tensor:
            row, (width, height) = item
            uri = self.index.shards[places.shards_U[row]]
            offset, size = int(places.offsets_U[row]), int(places.sizes_U[row])
            image = decode_image(storage.read_range(uri, offset, size), name=f"row {row} of {uri}")
            array = np.array(fit(image, width, height), dtype=np.uint8)
            return torch.from_numpy(array.transpose(2, 0, 1).copy())

        return torch.stack(self._map(pixels, zip(rows, sizes, strict=True)))

    def _map(self, read: Callable[[_Item], _Result], items: Iterable[_Item]) -> list[_Result]:
        """Read several at once, each as long as the storage is away."""

        def read_patiently(item: _Item) -> _Result:
            return patiently(partial(read, item), "reading", self._patience_s, logger.warning)

        return list(self._threads.map(read_patiently, items))
