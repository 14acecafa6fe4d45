"""Small mined pairs of stylegrid images, with or without their labels, in mining's layout."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from i2l_model.images import encode_jpeg
from jobs.corpus.captions import plain_caption
from jobs.corpus.contents import CONTENT_NAMES
from jobs.corpus.render import render
from jobs.corpus.styles import sample_style
from jobs.shards import ShardWriter

CONTENTS = CONTENT_NAMES[:12]
SEED = 5
NUM_REFS = 4
NUM_TARGETS = 2
INDEX_COLUMNS = ("pair_id", "split", "style_id", "ref_keys", "target_key")
SHARD = "corpus-00000.tar"


def write_grid_pairs(
    folder: Path,
    *,
    test: Iterable[int] = range(100, 106),
    train: Iterable[int] = range(2),
    labelled: bool = True,
) -> str:
    """Two pairs a style, which share four references; the targets are of two further contents."""
    rows: list[dict[str, Any]] = []
    for split, styles in (("test", test), ("train", train)):
        with ShardWriter(str(folder / "shards" / split), "pairs") as writer:
            for style_id in styles:
                _write_style(writer, rows, style_id, split, labelled)
    pq.write_table(pa.Table.from_pylist(rows), folder / "index.parquet")
    return str(folder)


def _write_style(
    writer: ShardWriter, rows: list[dict[str, Any]], style_id: int, split: str, labelled: bool
) -> None:
    shift = style_id % len(CONTENTS)
    contents = [*CONTENTS[shift:], *CONTENTS[:shift]][: NUM_REFS + NUM_TARGETS]
    for number, target in enumerate(contents[NUM_REFS:]):
        shown = [*contents[:NUM_REFS], target]
        record = _record(style_id, number, shown, split, labelled)
        members = {f"ref_{i}.jpg": _jpeg(name, style_id) for i, name in enumerate(shown[:-1])}
        members |= {"target.jpg": _jpeg(target, style_id), "json": json.dumps(record).encode()}
        writer.write(record["pair_id"], members)
        places = {"ref_shards": [SHARD] * NUM_REFS, "target_shard": SHARD}
        rows.append({key: record[key] for key in INDEX_COLUMNS} | places)


def _record(
    style_id: int, number: int, shown: list[str], split: str, labelled: bool
) -> dict[str, Any]:
    keys = [f"s{style_id}-{CONTENTS.index(name)}" for name in shown]
    metas = [
        {"stylegrid": {"seed": SEED, "style_id": style_id, "content": name}} if labelled else {}
        for name in shown
    ]
    return {
        "pair_id": f"{style_id}-{number}",
        "split": split,
        "style_id": f"component-{style_id}",
        "target_key": keys[-1],
        "target_prompt": plain_caption(shown[-1]),
        "target_head": shown[-1],
        "ref_keys": keys[:-1],
        "ref_prompts": [plain_caption(name) for name in shown[:-1]],
        "ref_heads": shown[:-1],
        "target_meta": metas[-1],
        "ref_metas": metas[:-1],
    }


def _jpeg(content: str, style_id: int) -> bytes:
    pixels = render(content, sample_style(style_id, SEED), variant=1).image
    return encode_jpeg(Image.fromarray(pixels))
