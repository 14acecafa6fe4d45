"""Packs a folder of images as WebDataset shards.

``photo.jpg`` becomes a sample with ``photo.txt`` beside it as its caption; without one the JSON
sidecar's "caption" is used, without that the words of the file name. Equal folders give equal
shards, whatever the number of workers: the list of pictures is cut into parts by their size, and
each part becomes one shard.
"""

import logging
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from i2l_model.errors import InputError
from i2l_model.images import IMAGE_EXTENSIONS
from jobs import storage
from jobs.corpus.pack_files import (
    PARTS_FOLDER,
    PREFIX,
    PackedShard,
    PackResult,
    finished_pack,
    require_same_source,
    write_finished,
)
from jobs.corpus.pack_part import PackedPart, PackTask, pack_part
from jobs.corpus.pack_workers import pack_part_in_worker, worker_pool
from jobs.corpus.picture_files import Item, PictureFile, state_digest, walk_pictures
from jobs.corpus.picture_sample import PackConfig
from jobs.progress import Progress
from jobs.shards import remove_shards

logger = logging.getLogger(__name__)

_TAR_BYTES_A_SAMPLE = 4096  # three headers, padding, and our own JSON
_MAX_EXAMPLES = 5
_LIST_INTERVAL = 20_000


def run_pack(
    config: PackConfig, folder: str | Path, output_uri: str, progress: Progress
) -> PackResult:
    """Pack all pictures below ``folder`` into ``<output_uri>/pack-00000.tar`` and on.

    A part without a usable picture leaves a gap in the numbers. ``pack.json`` comes last. A
    finished output of the same folder and settings is returned as it is; after a kill, finished
    shards are kept and the result is the same to the byte. Shards that were packed before from
    another state of the folder stay until the first usable picture is found.

    Raises:
        InputError: If the folder does not exist, or holds no usable picture, or the output has
            the pictures of another folder.
    """
    root = storage.local_path(folder).resolve()
    output_uri = storage.absolute_uri(output_uri)
    if not root.is_dir():
        raise InputError("folder", folder, "is not an existing folder", "give a folder of images")
    survey = _survey(str(root), config, progress)
    if not survey.num_items:
        kinds = ", ".join(IMAGE_EXTENSIONS)
        raise InputError("folder", folder, "holds no pictures", f"add files of type {kinds}")
    finished = finished_pack(output_uri, config, survey.state)
    if finished is not None:
        logger.info("%s is finished for this folder and these settings", output_uri)
        progress.update("pack", survey.num_items, survey.num_items, "already packed")
        return finished
    require_same_source(root, output_uri)
    tasks = (
        PackTask(number, str(root), output_uri, config, tuple(part))
        for number, part in enumerate(_parts(_walk(str(root), config), config))
    )
    shards, counts, examples = _packed(tasks, survey, config, progress)
    if not shards:
        problem = f"holds no usable picture ({_listed(counts)})"
        raise InputError("folder", folder, problem, "replace the files that were left out")
    if counts:
        logger.warning("left out of %s: %s", root, _listed(counts))
    remove_shards(output_uri, PREFIX, keep={shard.name for shard in shards})
    result = PackResult(output_uri, tuple(shards), counts, examples)
    write_finished(result, config, root, survey.state)
    storage.delete(storage.join_uri(output_uri, PARTS_FOLDER))
    return result


@dataclass(frozen=True, slots=True)
class _Survey:
    """What is in the folder: pictures and what is left out, parts, and a hash of their state."""

    num_items: int
    num_parts: int
    state: str


def _walk(root: str, config: PackConfig) -> Iterator[Item]:
    return walk_pictures(root, follow_links=config.follow_links)


def _survey(root: str, config: PackConfig, progress: Progress) -> _Survey:
    counted, num_parts = 0, 0

    def items() -> Iterator[Item]:
        nonlocal counted, num_parts
        for part in _parts(_walk(root, config), config):
            num_parts += 1
            for item in part:
                counted += 1
                if counted % _LIST_INTERVAL == 0:
                    progress.update("list", counted)
                yield item

    state = state_digest(items())
    progress.update("list", counted, counted)
    return _Survey(counted, num_parts, state)


def _parts(items: Iterable[Item], config: PackConfig) -> Iterator[list[Item]]:
    """Cut the list where the next picture would make the shard too large."""
    part: list[Item] = []
    size, limit = 0, config.shard_mib << 20
    for item in items:
        weight = _weight(item, config)
        if part and size + weight > limit:
            yield part
            part, size = [], 0
        part.append(item)
        size += weight
    if part:
        yield part


def _weight(item: Item, config: PackConfig) -> int:
    """Bytes that a picture takes in a shard, if it is stored as it is."""
    if not isinstance(item, PictureFile) or item.state.size > config.max_file_mib << 20:
        return _TAR_BYTES_A_SAMPLE
    sidecars = sum(max(state.size, 0) for state in item.sidecars if state)
    return _TAR_BYTES_A_SAMPLE + item.state.size + 2 * sidecars


def _packed(
    tasks: Iterator[PackTask], survey: _Survey, config: PackConfig, progress: Progress
) -> tuple[list[PackedShard], dict[str, int], dict[str, list[str]]]:
    """Pack all parts; returns the shards, and the drops with examples by reason."""
    shards: list[PackedShard] = []
    counts: Counter[str] = Counter()
    examples: dict[str, list[str]] = {}
    num_done, num_images = 0, 0
    for part in _run(tasks, min(config.num_workers, survey.num_parts)):
        if part.shard is not None:
            shards.append(part.shard)
            num_images += part.shard.num_images
        counts.update(part.drops)
        for reason, names in part.examples.items():
            known = examples.setdefault(reason, [])
            known += names[: _MAX_EXAMPLES - len(known)]
        num_done += part.num_items
        note = f"{num_images:,} packed, {counts.total():,} left out, {len(shards)} shards"
        progress.update("pack", num_done, max(num_done, survey.num_items), note)
    return shards, dict(sorted(counts.items())), examples


def _run(tasks: Iterator[PackTask], num_workers: int) -> Iterator[PackedPart]:
    """Results in the order of the tasks, a few of which are under way at a time."""
    if num_workers <= 1:
        yield from map(pack_part, tasks)
        return
    pool = worker_pool(num_workers)
    waiting: deque[Future[PackedPart]] = deque()
    try:
        for task in chain(tasks, [None]):
            if task is not None:
                waiting.append(pool.submit(pack_part_in_worker, task))
            while waiting and (task is None or len(waiting) > 2 * num_workers):
                yield waiting.popleft().result()
    except BrokenProcessPool as error:
        raise RuntimeError(
            "a process that packs was killed, perhaps for want of memory; the same command "
            "continues where it stopped, and --set pack.num_workers=1 needs the least"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{reason} {count}" for reason, count in counts.items())
