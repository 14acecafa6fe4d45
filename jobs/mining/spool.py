"""The images that pairs and report show, decoded and compressed once.

Ray actors read them again from the input, one shard at a time; they wait in a local temporary
file until the pairs that use them are written in order.
"""

import io
import tempfile
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import ray.data

from i2l_model.images import decode_image, encode_jpeg
from jobs.mining.config import MiningConfig
from jobs.mining.features import Samples
from jobs.mining.sample_row import image_member
from jobs.progress import Progress
from jobs.shards import read_shard

_IMAGES_A_BATCH = 64


class ImageSpool:
    """JPEG bytes by sample row, in one temporary file that is gone after the ``with`` block."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by __exit__
        self._places: dict[int, tuple[int, int]] = {}

    def __enter__(self) -> "ImageSpool":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._file.close()

    def __len__(self) -> int:
        return len(self._places)

    def fill(
        self, samples: Samples, rows: Sequence[int], config: MiningConfig, progress: Progress
    ) -> None:
        """Read and compress the images of ``rows`` (sample rows)."""
        for row, data in _compressed(samples, rows, config):
            self.add(row, data)
            progress.update("compress", len(self), len(rows))
        missing = set(rows) - set(self._places)
        if missing:
            first = samples.key[min(missing)]
            raise RuntimeError(f"{len(missing)} images, {first} among them, left the input")

    def add(self, row: int, data: bytes) -> None:
        """Store the bytes of one image."""
        self._places[row] = (self._file.seek(0, io.SEEK_END), len(data))
        self._file.write(data)

    def get(self, row: int) -> bytes:
        """JPEG bytes of one image."""
        offset, size = self._places[row]
        self._file.seek(offset)
        return self._file.read(size)


def _compressed(
    samples: Samples, rows: Sequence[int], config: MiningConfig
) -> Iterator[tuple[int, bytes]]:
    """(sample row, JPEG bytes) of ``rows``, shard by shard."""
    wanted: dict[str, dict[str, int]] = {}
    for row in rows:
        wanted.setdefault(samples.shard[row], {})[samples.key[row]] = row
    items = [
        {"shard": shard, "keys": list(found), "rows": list(found.values())}
        for shard, found in sorted(wanted.items())
    ]
    dataset = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
        CompressStage,
        fn_constructor_args=(config,),
        batch_size=1,
        num_cpus=config.workers.num_cpus,
        compute=ray.data.ActorPoolStrategy(size=min(config.workers.num_ingest, len(items))),
    )
    for image in dataset.iter_rows():
        yield int(image["row"]), image["jpeg"]


class CompressStage:
    """Ray Data actor: a shard with the wanted keys → its images as JPEG, one row each."""

    def __init__(self, config: MiningConfig) -> None:
        self._config = config

    def __call__(self, batch: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Read each shard once."""
        for shard, keys, rows in zip(batch["shard"], batch["keys"], batch["rows"], strict=True):
            images = self._compressed(str(shard), dict(zip(keys, rows, strict=True)))
            while part := list(islice(images, _IMAGES_A_BATCH)):
                yield {"row": [row for row, _ in part], "jpeg": [data for _, data in part]}

    def _compressed(self, shard: str, row_of: dict[str, int]) -> Iterator[tuple[int, bytes]]:
        config = self._config
        limit = config.ingest.max_member_mib << 20
        for sample in read_shard(shard, max_member_bytes=limit):
            data = image_member(sample) if sample.key in row_of else None
            if data is not None:
                image = decode_image(data, max_pixels=config.ingest.max_pixels, name=sample.key)
                yield row_of[sample.key], encode_jpeg(image, config.jpeg_quality)
