"""What a mining run leaves behind, and recognising a run that is already done."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jobs import storage
from jobs.mining.config import MiningConfig
from jobs.mining.features import InputShard, Samples
from jobs.mining.pairs import PairRecord
from jobs.mining.split import SPLITS
from jobs.provenance import environment_versions, git_sha, json_hash, without_execution
from jobs.shards import ShardInfo

MANIFEST_SCHEMA = "i2l.pairs/1"


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
    if not same:
        return None
    return locate_result(output_uri, manifest["counts"], manifest["content_hash"], reused=True)


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


def drop_counts(samples: Samples) -> dict[str, int]:
    """Dropped samples by reason, most frequent first."""
    counts = Counter(reason for reason in samples.reason if reason)
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def count_all(samples: Samples, records: Sequence[PairRecord]) -> dict[str, int]:
    """Numbers of images, styles and pairs."""
    counts = {
        "images": len(samples),
        "images_kept": sum(not reason for reason in samples.reason),
        "images_used": len({row for r in records for row in (r.target, *r.refs)}),
        "styles": len({r.index["style_id"] for r in records}),
        "pairs": len(records),
    }
    for split in SPLITS:
        rows = [r.index for r in records if r.index["split"] == split]
        counts[f"pairs_{split}"] = len(rows)
        counts[f"styles_{split}"] = len({row["style_id"] for row in rows})
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
    """Write the manifest, the sign that a run is complete, and return the content hash."""
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
        "config": config.model_dump(mode="json"),
        "counts": counts,
        "drops": drops,
        "cut_threshold": cut_threshold,
        "splits": entries,
        "inputs": [{"uri": i.uri, "sha256": i.sha256, "size": i.size} for i in inputs],
        "git_sha": git_sha(),
        "versions": environment_versions(),
    }
    storage.write_bytes(uri, json.dumps(manifest, indent=2, sort_keys=True).encode())
    return content_hash
