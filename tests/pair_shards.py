"""Small mined pairs for tests: one flat colour a style, one drawn shape a content."""

import colorsys
import io
import json
from collections.abc import Container
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from PIL import Image, ImageDraw

from i2l_model.images import encode_jpeg
from jobs import provenance, storage
from jobs.shards import ShardWriter

CONTENTS = ("circle", "square", "cross", "bar", "ring", "corner")
SIZE = 64


def draw(style: int, content: str) -> Image.Image:
    """The content in the style's colours."""
    ground = tuple(round(255 * c) for c in colorsys.hsv_to_rgb(style * 0.137 % 1, 0.8, 0.9))
    figure = tuple(round(255 * c) for c in colorsys.hsv_to_rgb(style * 0.331 % 1, 0.4, 0.4))
    image = Image.new("RGB", (SIZE, SIZE), ground)
    pen = ImageDraw.Draw(image)
    if content == "circle":
        pen.ellipse((16, 16, 48, 48), fill=figure)
    elif content == "square":
        pen.rectangle((16, 16, 48, 48), fill=figure)
    elif content == "cross":
        pen.line((16, 16, 48, 48), fill=figure, width=8)
        pen.line((48, 16, 16, 48), fill=figure, width=8)
    elif content == "bar":
        pen.rectangle((28, 8, 36, 56), fill=figure)
    elif content == "ring":
        pen.ellipse((16, 16, 48, 48), outline=figure, width=6)
    else:
        pen.rectangle((0, 0, 24, 24), fill=figure)
    return image


def pair_record(split: str, style: int, contents: tuple[str, ...], number: int) -> dict:
    """A pair's json: the last content is the target, those before it are references."""
    *refs, target = contents
    name = f"style{style:02d}"
    return {
        "pair_id": f"{name}-{number}",
        "split": split,
        "style_id": name,
        "target_key": f"{name}/{target}",
        "target_prompt": f"a {target}",
        "target_head": target,
        "ref_keys": [f"{name}/{ref}" for ref in refs],
        "ref_prompts": [f"a {ref}" for ref in refs],
        "ref_heads": refs,
        "style_similarity": 0.9,
        "content_similarity": 0.1,
        "target_meta": {},
        "ref_metas": [{} for _ in refs],
    }


def write_pairs(
    folder: Path,
    *,
    train_styles: int = 6,
    val_styles: int = 2,
    pairs_per_style: int = 4,
    wide: Container[str | int] = (),
) -> Path:
    """Write shards, index and manifest as mining does, and return the folder.

    Targets whose contents or styles are in ``wide`` are half as wide again.
    """
    rows = []
    splits = {"train": range(train_styles), "val": range(train_styles, train_styles + val_styles)}
    for split, styles in splits.items():
        if not styles:
            continue
        with ShardWriter(str(folder / "shards" / split), "pairs") as writer:
            for style in styles:
                for number in range(pairs_per_style):
                    contents = tuple(np.roll(CONTENTS, number)[:4].tolist())
                    record = pair_record(split, style, contents, number)
                    members = {
                        f"ref_{i}.jpg": encode_jpeg(draw(style, ref))
                        for i, ref in enumerate(contents[:-1])
                    }
                    target = draw(style, contents[-1])
                    if contents[-1] in wide or style in wide:
                        target = target.resize((SIZE * 3 // 2, SIZE))
                    members["target.jpg"] = encode_jpeg(target)
                    members["json"] = json.dumps(record).encode()
                    writer.write(record["pair_id"], members)
                    rows.append(record)
    columns = ["pair_id", "split", "style_id", "ref_keys", "target_key", "target_prompt"]
    table = pa.table({name: [row[name] for row in rows] for name in columns})
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(table, buffer)
    storage.write_bytes(folder / "index.parquet", buffer.getvalue())
    manifest = {"schema": 1, "content_hash": provenance.json_hash(rows)}
    storage.write_bytes(folder / "manifest.json", json.dumps(manifest).encode())
    return folder
