"""Reads the images of test-split styles out of the mined pair shards."""

from __future__ import annotations

import hashlib
import io
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow.parquet as pq

from i2l_model.errors import InputError
from jobs import shards, storage

logger = logging.getLogger(__name__)

INDEX_COLUMNS = [
    "pair_id", "split", "style_id", "ref_keys", "target_key", "ref_shards", "target_shard"
]  # fmt: skip
Place = tuple[str, str]
# Mined styles looked at for each one wanted: some turn out too small or seen in training.
CANDIDATES_PER_STYLE = 4


@dataclass(frozen=True, slots=True)
class GridLabel:
    """What the renderer needs to draw a stylegrid image again."""

    seed: int
    style_id: int
    content: str

    @property
    def style(self) -> str:
        """Name of the true style, whatever component the miner put it in."""
        return f"grid-{self.seed}-{self.style_id}"


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """An encoded picture of one style with its caption; mining read it from `shard`."""

    shard: str
    key: str
    data: bytes
    prompt: str
    head: str
    label: GridLabel | None

    @property
    def place(self) -> Place:
        """Tells it from every other image; shards may hold the same keys."""
        return self.shard, self.key

    @property
    def subject(self) -> str:
        """What is shown: the true content where known, else the caption's head.

        Pictures without a readable caption each count as a content of their own.
        """
        return self.label.content if self.label else self.head or self.key


@dataclass(frozen=True, slots=True)
class TestImages:
    """Images of the test split by style, and what was left out."""

    styles: dict[str, tuple[LabelledImage, ...]]
    num_shared_keys: int
    num_seen_styles: int

    # pytest would otherwise take the class for a test.
    __test__ = False


def stable_order(seed: int, *parts: str) -> str:
    """Sort key that shuffles the same way on every machine."""
    return hashlib.sha256("\x1f".join([str(seed), *parts]).encode()).hexdigest()


def read_test_images(
    pairs_uri: str, *, num_styles: int, max_pairs_per_style: int, seed: int
) -> TestImages:
    """Images of up to four times `num_styles` test styles.

    Images that also serve a pair of the train or val split are dropped, and so are styles
    which the labels show there: a mined component need not hold the whole of a style, and val pairs
    chose the weights.

    Raises:
        InputError: If the index or the test shards are missing.
    """
    index = _read_index(pairs_uri)
    places = {row["pair_id"]: _places(row) for row in index if row["split"] == "test"}
    used = {place for row in index if row["split"] != "test" for place in _places(row)}
    styles = sorted(
        {row["style_id"] for row in index if row["split"] == "test"},
        key=lambda style: stable_order(seed, "style", style),
    )
    wanted = set(styles[: CANDIDATES_PER_STYLE * num_styles])
    found: dict[str, dict[Place, LabelledImage]] = {}
    num_pairs: dict[str, int] = {}
    shared: set[Place] = set()
    for sample in _read_split(pairs_uri, "test"):
        record = _record(sample)
        style = str(record["style_id"])
        if style not in wanted or num_pairs.get(style, 0) >= max_pairs_per_style:
            continue
        num_pairs[style] = num_pairs.get(style, 0) + 1
        for image in _images(sample, record, places[record["pair_id"]]):
            if image.place in used:
                shared.add(image.place)
                continue
            name = image.label.style if image.label else style
            found.setdefault(name, {}).setdefault(image.place, image)
    seen = _seen_before(pairs_uri, found)
    if shared or seen:
        logger.warning(
            "left out %d images and %d styles that the train or val split shows",
            len(shared),
            len(seen),
        )
    return TestImages(
        styles={name: tuple(found[name].values()) for name in sorted(found) if name not in seen},
        num_shared_keys=len(shared),
        num_seen_styles=len(seen),
    )


def grid_label(meta: Mapping[str, Any] | None) -> GridLabel | None:
    """The stylegrid label in a sample's json, if it has one."""
    label = (meta or {}).get("stylegrid")
    if not isinstance(label, Mapping):
        return None
    return GridLabel(
        seed=int(label["seed"]), style_id=int(label["style_id"]), content=str(label["content"])
    )


def _read_index(pairs_uri: str) -> list[dict[str, Any]]:
    uri = storage.join_uri(pairs_uri, "index.parquet")
    if not storage.exists(uri):
        raise InputError(
            "--pairs", pairs_uri, "has no index.parquet", "name the output of i2l mine"
        )
    table = pq.read_table(io.BytesIO(storage.read_bytes(uri)), columns=INDEX_COLUMNS)
    rows: list[dict[str, Any]] = table.to_pylist()
    return [{**row, "style_id": str(row["style_id"])} for row in rows]


def _places(row: Mapping[str, Any]) -> list[Place]:
    """Shard and key of a pair's references, then of its target."""
    references = zip(row["ref_shards"], row["ref_keys"], strict=True)
    return [*references, (row["target_shard"], row["target_key"])]


def _read_split(pairs_uri: str, split: str) -> Iterator[shards.ShardSample]:
    folder = storage.join_uri(pairs_uri, "shards", split)
    if not shards.has_shards(folder):
        raise InputError("--pairs", folder, "holds no shards", "mine with a test share above 0")
    for uri in shards.list_shards(folder):
        yield from shards.read_shard(uri)


def _record(sample: shards.ShardSample) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(sample.members["json"])
    return record


def _images(
    sample: shards.ShardSample, record: Mapping[str, Any], places: Sequence[Place]
) -> Iterator[LabelledImage]:
    for position, (shard, key) in enumerate(places[:-1]):
        yield LabelledImage(
            shard=shard,
            key=key,
            data=sample.members[f"ref_{position}.jpg"],
            prompt=record["ref_prompts"][position],
            head=record["ref_heads"][position],
            label=grid_label(record["ref_metas"][position]),
        )
    shard, key = places[-1]
    yield LabelledImage(
        shard=shard,
        key=key,
        data=sample.members["target.jpg"],
        prompt=record["target_prompt"],
        head=record["target_head"],
        label=grid_label(record["target_meta"]),
    )


def _seen_before(pairs_uri: str, found: Mapping[str, Mapping[Place, LabelledImage]]) -> set[str]:
    """Labelled test styles that also occur in the train or val shards."""
    if not any(image.label for images in found.values() for image in images.values()):
        return set()
    seen: set[str] = set()
    for split in ("train", "val"):
        if not shards.has_shards(storage.join_uri(pairs_uri, "shards", split)):
            continue
        for sample in _read_split(pairs_uri, split):
            record = _record(sample)
            for meta in (record["target_meta"], *record["ref_metas"]):
                label = grid_label(meta)
                if label is not None:
                    seen.add(label.style)
    return seen & set(found)
