"""Packs one part of a folder's pictures as one shard, once."""

import json
import sys
from collections import Counter
from dataclasses import asdict, dataclass

from jobs import storage
from jobs.corpus.pack_files import MANIFEST_NAME, PARTS_FOLDER, PREFIX, PackedShard
from jobs.corpus.picture_files import Item, LeftOut, PictureFile, state_digest
from jobs.corpus.picture_sample import LeftOutError, PackConfig, read_sample
from jobs.provenance import json_hash, without_execution
from jobs.shards import ShardWriter
from jobs.surrogates import replace_surrogates

_MAX_EXAMPLES = 5


@dataclass(frozen=True, slots=True)
class PackTask:
    """One part: its number is the shard's."""

    number: int
    root: str
    output_uri: str
    config: PackConfig
    items: tuple[Item, ...]

    @property
    def shard_uri(self) -> str:
        """Where the shard goes."""
        return storage.join_uri(self.output_uri, f"{PREFIX}-{self.number:05d}.tar")

    @property
    def record_uri(self) -> str:
        """What tells a later run that the part is done; gone when all are."""
        return storage.join_uri(self.output_uri, PARTS_FOLDER, f"{self.number:05d}.json")

    def digest(self) -> str:
        """Hash of all that shapes the shard."""
        settings = without_execution(self.config.model_dump(mode="json"))
        return json_hash([state_digest(list(self.items)), settings])


@dataclass(frozen=True, slots=True)
class PackedPart:
    """What became of a part.

    Attributes:
        num_items: Pictures looked at.
        shard: None if no picture of the part is usable.
        drops: Pictures left out, by reason.
        examples: A few of their names for each reason.
    """

    num_items: int
    shard: PackedShard | None
    drops: dict[str, int]
    examples: dict[str, list[str]]


def pack_part(task: PackTask) -> PackedPart:
    """Write the part's shard, unless an earlier run did."""
    digest = task.digest()
    return _recorded(task, digest) or _write(task, digest)


def _recorded(task: PackTask, digest: str) -> PackedPart | None:
    """The part as an earlier run left it, if it is this part and its shard is there."""
    if not storage.exists(task.record_uri):
        return None
    try:
        record = json.loads(storage.read_bytes(task.record_uri))
        part = PackedPart(**{**record["part"], "shard": PackedShard(**record["part"]["shard"])})
        same = bool(record["digest"] == digest)
    except (ValueError, KeyError, TypeError):
        same = False
    if same and part.shard and _has_size(task.shard_uri, part.shard.size):
        return part
    storage.delete(task.record_uri)  # before the shard it speaks of is replaced
    return None


def _has_size(uri: str, size: int) -> bool:
    return storage.exists(uri) and storage.file_size(uri) == size


def _write(task: PackTask, digest: str) -> PackedPart:
    drops: Counter[str] = Counter()
    examples: dict[str, list[str]] = {}
    started = False
    with ShardWriter(task.output_uri, PREFIX, sys.maxsize, first_number=task.number) as writer:
        for item in task.items:
            try:
                members = _members(task, item)
            except LeftOutError as error:
                reason = str(error)
                drops[reason] += 1
                names = examples.setdefault(reason, [])
                if len(names) < _MAX_EXAMPLES:
                    names.append(replace_surrogates(item.name))
                continue
            if not started:  # from here on the output is not complete
                storage.delete(storage.join_uri(task.output_uri, MANIFEST_NAME))
                started = True
            assert isinstance(item, PictureFile)
            writer.write(item.key, members)
    shards = [
        PackedShard(info.uri.rsplit("/", 1)[-1], info.sha256, info.size, info.num_samples)
        for info in writer.shards
    ]
    part = PackedPart(len(task.items), shards[0] if shards else None, dict(drops), examples)
    if shards:
        record = {"digest": digest, "part": asdict(part)}
        storage.write_bytes(task.record_uri, json.dumps(record).encode())
    return part


def _members(task: PackTask, item: Item) -> dict[str, bytes]:
    if isinstance(item, LeftOut):
        raise LeftOutError(item.reason)
    return read_sample(task.root, item, task.config)
