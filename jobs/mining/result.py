"""What a mining run leaves behind, and recognising a run that is already done."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobs import storage
from jobs.mining.config import MiningConfig
from jobs.mining.mined import MinedPairs
from jobs.mining.pairs import OrderedPairs
from jobs.mining.samples import InputShard, Samples
from jobs.mining.split import SPLITS
from jobs.provenance import environment_versions, git_sha, json_hash, without_execution
from jobs.shards import ShardInfo

MANIFEST_SCHEMA = "i2l.pairs/2"


@dataclass(frozen=True, slots=True)
class MiningResult:
    """Where the outputs are.

    Attributes:
        index_uri: ``index.parquet``.
        shards_uri: Folder of the pair shards, one subfolder a split.
        manifest_uri: ``manifest.json``.
        report_uri: ``report/index.html``.
        counts: Numbers of images, styles and pairs, overall and by split.
        content_hash: Hash over all pair shards.
        reused: Whether a finished run of the same settings and input was found and kept.
    """

    index_uri: str
    shards_uri: str
    manifest_uri: str
    report_uri: str
    counts: dict[str, int]
    content_hash: str
    reused: bool = False


def result_hash(config: MiningConfig) -> str:
    """Hash of the settings that decide the result; worker settings do not."""
    return json_hash(without_execution(config.model_dump(mode="json")))


def finished_result(output_uri: str, config_hash: str, input_hash: str) -> MiningResult | None:
    """The result that lies in ``output_uri`` if it has these settings and this input."""
    uri = storage.join_uri(output_uri, "manifest.json")
    if not storage.exists(uri):
        return None
    try:
        manifest = json.loads(storage.read_bytes(uri))
        same = manifest["config_hash"] == config_hash and manifest["input_hash"] == input_hash
    except (ValueError, KeyError, TypeError):
        return None
    if not same or not _has_shards(output_uri, manifest):
        return None
    return locate_result(output_uri, manifest["counts"], manifest["content_hash"], reused=True)


def _has_shards(output_uri: str, manifest: dict[str, Any]) -> bool:
    """Whether all pair shards that the manifest names are still there."""
    root = storage.join_uri(output_uri, "shards")
    there = set(storage.list_files(root, ".tar")) if storage.exists(root) else set()
    named = ((s, entry["name"]) for s, entries in manifest["splits"].items() for entry in entries)
    return all(storage.join_uri(root, split, name) in there for split, name in named)


def locate_result(
    output_uri: str, counts: dict[str, int], content_hash: str, *, reused: bool = False
) -> MiningResult:
    """The result with its places filled in."""
    return MiningResult(
        index_uri=storage.join_uri(output_uri, "index.parquet"),
        shards_uri=storage.join_uri(output_uri, "shards"),
        manifest_uri=storage.join_uri(output_uri, "manifest.json"),
        report_uri=storage.join_uri(output_uri, "report", "index.html"),
        counts=counts,
        content_hash=content_hash,
        reused=reused,
    )


def used_rows(mined: MinedPairs) -> NDArray[np.int64]:
    """Sorted rows of the images that pairs use."""
    images = {image for pair in mined.selection.pairs for image in (pair.target, *pair.refs)}
    return np.sort(mined.rows[sorted(images)]) if images else np.zeros(0, np.int64)


def count_all(samples: Samples, mined: MinedPairs, ordered: OrderedPairs) -> dict[str, int]:
    """Numbers of images, styles and pairs."""
    counts = {
        "images": len(samples),
        "images_kept": int(samples.is_kept().sum()),
        "images_used": len(used_rows(mined)),
        "styles": len(mined.splits),
        "pairs": len(ordered.numbers),
    }
    pairs = np.bincount(ordered.splits, minlength=len(SPLITS)).tolist()
    for split, num_pairs in zip(SPLITS, pairs, strict=True):
        counts[f"pairs_{split}"] = num_pairs
        counts[f"styles_{split}"] = sum(found == split for found in mined.splits.values())
    return counts


def write_manifest(
    uri: str,
    *,
    config: MiningConfig,
    inputs: Sequence[InputShard],
    input_hash: str,
    counts: dict[str, int],
    drops: dict[str, int],
    cut_threshold: float,
    shards: dict[str, list[ShardInfo]],
) -> str:
    """Write the manifest, the sign that a run is complete, and return the content hash.

    It depends on input and settings alone; ``write_run`` tells the rest.
    """
    entries = {
        split: [
            {
                "name": info.uri.rsplit("/", 1)[-1],
                "sha256": info.sha256,
                "size": info.size,
                "num_pairs": info.num_samples,
            }
            for info in infos
        ]
        for split, infos in shards.items()
    }
    content_hash = json_hash(entries)
    manifest: dict[str, Any] = {
        "schema": MANIFEST_SCHEMA,
        "content_hash": content_hash,
        "input_hash": input_hash,
        "config_hash": result_hash(config),
        "config": without_execution(config.model_dump(mode="json")),
        "counts": counts,
        "drops": drops,
        "cut_threshold": cut_threshold,
        "splits": entries,
        "inputs": [{"name": i.name, "sha256": i.sha256, "size": i.size} for i in inputs],
    }
    storage.write_bytes(uri, json.dumps(manifest, indent=2, sort_keys=True).encode())
    return content_hash


def write_run(
    output_uri: str, *, config: MiningConfig, input_uri: str, num_computed: int, started: float
) -> None:
    """Write ``run.json``: where, when and by which code the last run that worked ran.

    Args:
        output_uri: Folder of the run.
        config: All settings, those that only spread work included.
        input_uri: The input as it was given.
        num_computed: Shards whose features were computed, not found.
        started: Seconds since the epoch.
    """
    run = {
        "input": input_uri,
        "output": output_uri,
        "started": _utc(started),
        "seconds": round(time.time() - started, 1),
        "shards_computed": num_computed,
        "workers": config.workers.model_dump(mode="json"),
        "git_sha": git_sha(),
        "versions": environment_versions(),
    }
    uri = storage.join_uri(output_uri, "run.json")
    storage.write_bytes(uri, json.dumps(run, indent=2).encode())


def _utc(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
