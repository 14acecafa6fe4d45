"""A labelled hard grid with copies in it: mined blind, scored, and set beside simpler rules."""

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from i2l_model.images import decode_image
from jobs.corpus.families import FamilyConfig
from jobs.corpus.stylegrid import CorpusConfig, write_corpus
from jobs.mining.config import MiningConfig
from jobs.mining.run import run_mining
from jobs.mining.scoring import (
    PairScores,
    baseline_pairs,
    read_index,
    read_labels,
    score_pairs,
)
from jobs.progress import NullProgress
from jobs.shards import ShardWriter, list_shards, read_shard

COPY_EVERY, COPY_QUALITY = 20, 80
MINED = "i2l mine"
GROUPS = ("ordinary", "shared_palette", "varying_palette")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What each rule did; the last one is the miner.

    Attributes:
        scores: Rule → scores of its pairs.
        precision: Rule → group of styles → precision of the pairs with a target of that group.
    """

    scores: dict[str, PairScores]
    precision: dict[str, dict[str, float]]


def hard_grid(num_styles: int, images_per_style: int, seed: int) -> CorpusConfig:
    """All kinds of styles are in it, also those that the descriptor was fitted without."""
    return CorpusConfig(
        num_styles=num_styles,
        images_per_style=images_per_style,
        seed=seed,
        families=FamilyConfig(),
    )


def mine_and_score(corpus: CorpusConfig, folder: Path) -> Outcome:
    """Draw ``corpus``, mine it without labels by the usual settings, and score the pairs."""
    labelled, blind = str(folder / "labelled"), str(folder / "blind")
    write_corpus(corpus, str(folder / "drawn"), NullProgress())
    keys, images, group = [], [], {}
    with ShardWriter(labelled, "grid") as writer, ShardWriter(blind, "grid") as blind_writer:
        for number, members in enumerate(_with_copies(str(folder / "drawn"))):
            key = f"{number:08d}"
            writer.write(key, members)
            blind_writer.write(key, {k: v for k, v in members.items() if k != "json"})
            keys.append(key)
            images.append(np.asarray(decode_image(members.get("png") or members["jpg"])))
            group[key] = json.loads(members["json"])["style_group"]
    result = run_mining(MiningConfig(), blind, str(folder / "mined"), NullProgress())
    rules = baseline_pairs(images, keys) | {MINED: read_index(result.index_uri)}
    labels = read_labels(labelled)
    return Outcome(
        {rule: score_pairs(rows, labels) for rule, rows in rules.items()},
        {
            rule: {name: score_pairs(_of(rows, name, group), labels).precision for name in GROUPS}
            for rule, rows in rules.items()
        },
    )


def _of(rows: list[dict[str, Any]], name: str, group: dict[str, str]) -> list[dict[str, Any]]:
    return [row for row in rows if group[row["target_key"]] == name]


def _with_copies(source: str) -> Iterator[dict[str, bytes]]:
    """The members of each sample; every COPY_EVERY-th one is there again as a JPEG."""
    number = 0
    for shard in list_shards(source):
        for sample in read_shard(shard):
            labels = json.loads(sample.members["json"]) | {"picture_id": sample.key}
            members = {**sample.members, "json": json.dumps(labels).encode()}
            yield members
            if number % COPY_EVERY == 0:
                yield {"jpg": _as_jpeg(members.pop("png")), **members}
            number += 1


def _as_jpeg(png: bytes) -> bytes:
    buffer = io.BytesIO()
    Image.open(io.BytesIO(png)).save(buffer, format="JPEG", quality=COPY_QUALITY)
    return buffer.getvalue()
