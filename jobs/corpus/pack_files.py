"""What packing leaves behind, and recognising a pack that is already done.

``pack.json`` depends on the pictures alone and comes last. ``run.json`` says where they came from
and in which state the folder was.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from i2l_model.errors import InputError
from jobs import storage
from jobs.corpus.picture_sample import PackConfig
from jobs.provenance import bytes_hash, environment_versions, git_sha, without_execution
from jobs.surrogates import replace_surrogates

MANIFEST_NAME = "pack.json"
RUN_NAME = "run.json"
PREFIX = "pack"
PARTS_FOLDER = ".pack"
MANIFEST_SCHEMA = "i2l.pack/2"
RUN_SCHEMA = "i2l.pack-run/1"


@dataclass(frozen=True, slots=True)
class PackedShard:
    """A shard as the manifest lists it."""

    name: str
    sha256: str
    size: int
    num_images: int


@dataclass(frozen=True, slots=True)
class PackResult:
    """What was packed.

    Attributes:
        uri: Folder of the shards.
        shards: The shards, in order.
        drops: Images left out, by reason.
        examples: A few file names for each reason.
        reused: Whether a finished pack of the same folder and settings was found and kept.
    """

    uri: str
    shards: tuple[PackedShard, ...]
    drops: dict[str, int]
    examples: dict[str, list[str]]
    reused: bool = False

    @property
    def num_images(self) -> int:
        """Packed images."""
        return sum(shard.num_images for shard in self.shards)

    @property
    def num_shards(self) -> int:
        """Number of shards."""
        return len(self.shards)


def finished_pack(output_uri: str, config: PackConfig, state: str) -> PackResult | None:
    """The result in ``output_uri``, if it is finished for this state of the folder."""
    text, run = _read(output_uri, MANIFEST_NAME), _json(_read(output_uri, RUN_NAME))
    if text is None or run is None:
        return None
    manifest = _json(text)
    same = run.get("pack_sha256") == bytes_hash(text) and run.get("source_state") == state
    if manifest is None or not same or manifest.get("config") != _settings(config):
        return None
    shards = tuple(PackedShard(**entry) for entry in manifest["shards"])
    there = set(storage.list_files(output_uri, ".tar"))
    if any(storage.join_uri(output_uri, shard.name) not in there for shard in shards):
        return None
    return PackResult(output_uri, shards, manifest["drops"], manifest["examples"], reused=True)


def require_same_source(root: Path, output_uri: str) -> None:
    """Raise if the output has the pictures of another folder, which packing would replace."""
    text = _read(output_uri, MANIFEST_NAME)
    if text is None:
        return
    manifest, run = _json(text), _json(_read(output_uri, RUN_NAME))
    if manifest is None or not str(manifest.get("schema")).startswith("i2l.pack/"):
        problem = f"holds a {MANIFEST_NAME} that is none of i2l pack"
        raise InputError("output", output_uri, problem, "give an empty folder")
    ours = replace_surrogates(str(root))
    source = (run or manifest).get("source", ours)
    if source != ours:
        problem = f"holds the pictures of {source}"
        raise InputError("output", output_uri, problem, "give an empty folder or remove it")


def write_finished(result: PackResult, config: PackConfig, root: Path, state: str) -> None:
    """Write ``run.json`` and, last, ``pack.json``: the sign that the pack is complete."""
    manifest = {
        "schema": MANIFEST_SCHEMA,
        "num_images": result.num_images,
        "drops": result.drops,
        "examples": result.examples,
        "config": _settings(config),
        "shards": [asdict(shard) for shard in result.shards],
    }
    text = json.dumps(manifest, indent=2, sort_keys=True, ensure_ascii=False).encode()
    run = {
        "schema": RUN_SCHEMA,
        "source": replace_surrogates(str(root)),
        "source_state": state,
        "pack_sha256": bytes_hash(text),
        "git_sha": git_sha(),
        "versions": environment_versions(),
    }
    described = json.dumps(run, indent=2, sort_keys=True, ensure_ascii=False).encode()
    storage.write_bytes(storage.join_uri(result.uri, RUN_NAME), described)
    storage.write_bytes(storage.join_uri(result.uri, MANIFEST_NAME), text)


def _settings(config: PackConfig) -> Any:
    return without_execution(config.model_dump(mode="json"))


def _read(output_uri: str, name: str) -> bytes | None:
    uri = storage.join_uri(output_uri, name)
    return storage.read_bytes(uri) if storage.exists(uri) else None


def _json(text: bytes | None) -> dict[str, Any] | None:
    try:
        value = json.loads(text or b"")
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
