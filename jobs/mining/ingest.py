"""Stage 1, one shard at a time: read, decode, normalise and judge every sample.

Every sample becomes one row, kept ("reason" is "") or dropped with a single reason. A last row
whose reason is ``END`` carries the number of rows in "position", so that the collector knows when
a shard is complete.
"""

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from i2l_model.images import IMAGE_EXTENSIONS, ImageError, decode_image
from jobs.mining.config import IngestConfig
from jobs.mining.feature_schema import SCHEMA
from jobs.mining.hashing import perceptual_hash, thumbnail
from jobs.mining.metadata import read_metadata
from jobs.shards import ShardSample, read_shard
from jobs.surrogates import replace_surrogates

END = "end_of_shard"
ROWS_PER_BATCH = 128
MAX_CAPTION_CHARS = 2000
Row = dict[str, Any]
_VECTORS = ("style", "content")
_ROW_SCHEMA = pa.schema(
    [
        ("shard", pa.string()),
        *(field for field in SCHEMA if field.name not in _VECTORS),
        ("pixels", pa.binary()),
        ("pixels_width", pa.int32()),
        ("pixels_height", pa.int32()),
    ]
)


class IngestStage:
    """Ray Data actor: {"shard": URIs} → batches of rows.

    An actor, since Ray Data would fuse a task with the encoder behind it and then hand all shards
    to one worker at once.

    Args:
        config: Limits.
        input_px: Short side to which larger images are scaled for the encoders.
    """

    def __init__(self, config: IngestConfig, input_px: int) -> None:
        self._config = config
        self._input_px = input_px

    def __call__(self, batch: dict[str, Any]) -> Iterator[pa.Table]:
        """Read the shards one after the other."""
        for shard in batch["shard"]:
            rows: list[Row] = []
            for row in _shard_rows(str(shard), self._config, self._input_px):
                rows.append(row)
                if len(rows) == ROWS_PER_BATCH:
                    yield _table(rows)
                    rows = []
            if rows:
                yield _table(rows)


def _shard_rows(shard: str, config: IngestConfig, input_px: int) -> Iterator[Row]:
    """All rows of a shard, numbered, then the end row."""
    dropped: list[tuple[str, str]] = []
    position = 0
    samples = read_shard(
        shard,
        lambda key, reason: dropped.append((key, reason)),
        max_member_bytes=config.max_member_mib << 20,
    )
    for entry in _with_drops(samples, dropped):
        if isinstance(entry, ShardSample):
            yield _sample_row(shard, position, entry, config, input_px)
        else:
            key, reason = entry
            yield _row(shard, position, key, reason=reason)
        position += 1
    yield _row(shard, position, "", reason=END)


def _with_drops(
    samples: Iterator[ShardSample], dropped: list[tuple[str, str]]
) -> Iterator[ShardSample | tuple[str, str]]:
    """The samples, and between them what the reader dropped on its way to each."""
    for sample in samples:
        yield from dropped
        dropped.clear()
        yield sample
    yield from dropped


def _sample_row(
    shard: str, position: int, sample: ShardSample, config: IngestConfig, input_px: int
) -> Row:
    data = image_member(sample)
    caption, meta = read_caption_member(sample), _meta(sample)
    if data is None:
        return _row(shard, position, sample.key, reason="no_image")
    if config.caption_required and not caption:
        return _row(shard, position, sample.key, reason="no_caption")
    try:
        image = decode_image(data, max_pixels=config.max_pixels, name=sample.key)
    except ImageError as error:
        return _row(shard, position, sample.key, reason=error.reason)
    reason = _size_reason(image, config)
    if reason:
        return _row(shard, position, sample.key, reason=reason)
    facts = read_metadata(meta)
    if not facts.downloaded:
        return _row(shard, position, sample.key, reason="download_failed")
    row = _row(shard, position, sample.key, caption=caption, meta=json.dumps(meta, sort_keys=True))
    row["source"], row["licence"], row["opt_out"] = facts.source, facts.licence, facts.opt_out
    row["aesthetic"], row["watermark"], row["nsfw"] = facts.aesthetic, facts.watermark, facts.nsfw
    working = _working_copy(image, input_px)
    row["width"], row["height"] = image.size
    row["sha256"] = hashlib.sha256(data).hexdigest()
    row["phash"] = perceptual_hash(image)
    row["thumbnail"] = thumbnail(image)
    row["pixels"] = working.tobytes()
    row["pixels_width"], row["pixels_height"] = working.size
    return row


def image_member(sample: ShardSample) -> bytes | None:
    """The sample's image file, None if it has none."""
    for extension in IMAGE_EXTENSIONS:
        if extension in sample.members:
            return sample.members[extension]
    return None


def read_caption_member(sample: ShardSample) -> str:
    """The caption from ``.txt``, else from the JSON's "caption"; "" if there is none."""
    text = sample.members.get("txt")
    if text is not None:
        caption = text.decode("utf-8-sig", "replace")
    else:
        caption = replace_surrogates(str(_meta(sample).get("caption") or ""))
    return " ".join(caption.split())[:MAX_CAPTION_CHARS]


def _meta(sample: ShardSample) -> dict[str, Any]:
    """The sample's JSON object; {} where it has none that can be read."""
    try:
        value = json.loads(sample.members.get("json", b"{}"))
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _size_reason(image: Image.Image, config: IngestConfig) -> str:
    short, long = sorted(image.size)
    if short < config.min_side:
        return "too_small"
    return "extreme_aspect" if long > config.max_aspect * short else ""


def _working_copy(image: Image.Image, input_px: int) -> Image.Image:
    """Scaled down to a short side of ``input_px``; smaller images stay."""
    short = min(image.size)
    if short <= input_px:
        return image
    width, height = (max(input_px, round(side * input_px / short)) for side in image.size)
    return image.resize((width, height), Image.Resampling.BOX, reducing_gap=3.0)


def _row(
    shard: str, position: int, key: str, *, reason: str = "", caption: str = "", meta: str = "{}"
) -> Row:
    return {
        "shard": shard,
        "position": position,
        "key": key,
        "reason": reason,
        "caption": caption,
        "meta": meta,
        "source": "",
        "licence": "",
        "opt_out": False,
        "width": 0,
        "height": 0,
        "sha256": "",
        "phash": 0,
        "thumbnail": b"",
        "aesthetic": None,
        "watermark": None,
        "nsfw": None,
        "pixels": b"",
        "pixels_width": 0,
        "pixels_height": 0,
    }


def _table(rows: list[Row]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=_ROW_SCHEMA)


def pixels_of(row: Row) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """The working copy of a row, (h, w, 3) uint8."""
    shape = (int(row["pixels_height"]), int(row["pixels_width"]), 3)
    return np.frombuffer(row["pixels"], dtype=np.uint8).reshape(shape)
