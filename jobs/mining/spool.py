"""The images that pairs and report show, decoded and compressed once, and what is told of them.

Ray actors read them again from the input, one shard at a time, and leave a file a shard in the
output's working folder, so that a killed run compresses no shard twice. Images wait in a local
temporary file until the pairs that use them are written in order.
"""

import io
import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray.data
from numpy.typing import NDArray

from i2l_model.errors import InputError
from i2l_model.images import decode_image, encode_jpeg
from jobs import storage
from jobs.mining.config import MiningConfig
from jobs.mining.sample_row import image_member
from jobs.mining.samples import InputShard, Samples
from jobs.parquet_files import open_parquet
from jobs.progress import Progress
from jobs.provenance import json_hash
from jobs.shards import read_shard
from jobs.surrogates import replace_surrogates

_IMAGES_A_BATCH = 64
_TEXTS = ["key", "caption", "meta"]
_SCHEMA = pa.schema([("position", pa.int64()), ("jpeg", pa.binary())])


@dataclass(frozen=True, slots=True)
class SpooledTexts:
    """What a sample says of itself."""

    key: str
    shard: str
    caption: str
    meta: dict[str, Any]


class ImageSpool:
    """JPEG bytes and texts by sample row, in one temporary file that ends with the ``with`` block.

    Raises:
        InputError: By ``fill``, if the input changed since it was read.
    """

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by __exit__
        self._images: dict[int, tuple[int, int]] = {}
        self._texts: dict[int, tuple[int, int]] = {}

    def __enter__(self) -> "ImageSpool":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._file.close()

    def __len__(self) -> int:
        return len(self._images)

    def fill(
        self,
        samples: Samples,
        rows: NDArray[np.integer],
        config: MiningConfig,
        work_uri: str,
        progress: Progress,
    ) -> None:
        """Read and compress the images of ``rows``; ``work_uri`` holds shards done before."""
        for values in samples.read(rows, _TEXTS):
            row = values["row"]
            shard = samples.shard_at(row).name
            texts = (values["key"], shard, values["caption"], json.loads(values["meta"]))
            self.add_texts(row, SpooledTexts(*texts))
        tasks = [_task(samples, shard, part, config) for shard, part in samples.by_shard(rows)]
        for task in _compressed(tasks, config, work_uri):
            first = int(samples.first[task.number])
            for position, data in _read_images(storage.join_uri(work_uri, task.name)):
                self.add(first + position, data)
            progress.update("compress", len(self), len(rows))
        for row in rows.tolist():
            if row not in self._images:
                raise _changed(samples, row)

    def add(self, row: int, data: bytes) -> None:
        """Store the bytes of one image."""
        self._images[row] = self._append(data)

    def add_texts(self, row: int, texts: SpooledTexts) -> None:
        """Store the texts of one image."""
        values = [texts.key, texts.shard, texts.caption, texts.meta]
        self._texts[row] = self._append(json.dumps(values).encode())

    def get(self, row: int) -> bytes:
        """JPEG bytes of one image."""
        return self._read(self._images[row])

    def texts(self, row: int) -> SpooledTexts:
        """The texts of one image."""
        return SpooledTexts(*json.loads(self._read(self._texts[row])))

    def _append(self, data: bytes) -> tuple[int, int]:
        place = self._file.seek(0, io.SEEK_END), len(data)
        self._file.write(data)
        return place

    def _read(self, place: tuple[int, int]) -> bytes:
        self._file.seek(place[0])
        return self._file.read(place[1])


def _changed(samples: Samples, row: int) -> InputError:
    problem = "changed while it was mined: images are gone"
    return InputError("input", samples.shard_at(row).uri, problem, "mine again")


@dataclass(frozen=True, slots=True)
class CompressTask:
    """Images of one shard: name of the file they go to, keys and positions in the shard."""

    number: int
    uri: str
    name: str
    keys: list[str]
    positions: list[int]


def _task(
    samples: Samples, number: int, rows: NDArray[np.int64], config: MiningConfig
) -> CompressTask:
    shard: InputShard = samples.shards[number]
    positions = (rows - samples.first[number]).tolist()
    keys = [values["key"] for values in samples.read(rows, ["key"])]
    identity = [shard.sha256, positions, config.jpeg_quality, config.ingest.max_pixels]
    name = f"{json_hash(identity)[:32]}.parquet"
    return CompressTask(number, shard.uri, name, keys, positions)


def _compressed(
    tasks: Sequence[CompressTask], config: MiningConfig, work_uri: str
) -> Iterator[CompressTask]:
    """Yield tasks as their files are there."""
    there = {uri.rpartition("/")[2] for uri in _files(work_uri)}
    yield from (task for task in tasks if task.name in there)
    missing = {str(number): task for number, task in enumerate(tasks) if task.name not in there}
    if not missing:
        return
    items = [{"task": number} for number in missing]
    dataset = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
        CompressStage,
        fn_constructor_args=(config, work_uri, missing),
        batch_size=1,
        num_cpus=config.workers.num_cpus,
        compute=ray.data.ActorPoolStrategy(size=min(config.workers.num_ingest, len(items))),
    )
    for done in dataset.iter_rows():
        yield missing[done["task"]]


def _files(folder: str) -> list[str]:
    return storage.list_files(folder) if storage.exists(folder) else []


class CompressStage:
    """Ray Data actor: writes the wanted images of a shard as JPEG into one file."""

    def __init__(self, config: MiningConfig, work_uri: str, tasks: dict[str, CompressTask]) -> None:
        self._config, self._work_uri, self._tasks = config, work_uri, tasks

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Read each shard once, a few images at a time."""
        for number in batch["task"]:
            task = self._tasks[str(number)]
            images = self._compressed(task)
            uri = storage.join_uri(self._work_uri, task.name)
            with open_parquet(uri, _SCHEMA, compression="none") as writer:
                while part := list(islice(images, _IMAGES_A_BATCH)):
                    positions, data = zip(*part, strict=True)
                    writer.write_table(
                        pa.table({"position": positions, "jpeg": data}, schema=_SCHEMA)
                    )
        return {"task": batch["task"]}

    def _compressed(self, task: CompressTask) -> Iterator[tuple[int, bytes]]:
        config, position_of = self._config, dict(zip(task.keys, task.positions, strict=True))
        limit = config.ingest.max_member_mib << 20
        for sample in read_shard(task.uri, max_member_bytes=limit):
            position = position_of.get(replace_surrogates(sample.key))
            data = image_member(sample) if position is not None else None
            if position is not None and data is not None:
                image = decode_image(data, max_pixels=config.ingest.max_pixels, name=sample.key)
                yield position, encode_jpeg(image, config.jpeg_quality)


def _read_images(uri: str) -> Iterator[tuple[int, bytes]]:
    """(position, JPEG bytes) of a file in the working folder, through a local copy."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "images.parquet"
        with storage.open_read(uri) as source, copy.open("wb") as target:
            shutil.copyfileobj(source, target)
        for batch in pq.ParquetFile(copy).iter_batches(_IMAGES_A_BATCH):
            yield from zip(batch["position"].to_pylist(), batch["jpeg"].to_pylist(), strict=True)
