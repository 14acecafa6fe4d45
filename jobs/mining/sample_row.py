"""One sample of a shard: decoded, normalised, judged and hashed into a row of the feature file."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from PIL import Image

from i2l_model.images import IMAGE_EXTENSIONS, DecodedImage, ImageError, decode_reduced
from jobs.mining.config import IngestConfig
from jobs.mining.hashing import perceptual_hash, thumbnail
from jobs.mining.metadata import read_metadata
from jobs.shards import ShardSample
from jobs.surrogates import replace_surrogates

MAX_CAPTION_CHARS = 2000
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class RowAndImage:
    """A row without vectors; the image is None for a dropped sample."""

    row: Row
    image: Image.Image | None = None


def dropped_row(position: int, key: str, reason: str) -> Row:
    """The row of a sample that cannot be used; columns that are left out are null."""
    return {
        "position": position,
        "key": replace_surrogates(key),
        "reason": reason,
        "caption": "",
        "meta": "{}",
        "source": "",
        "licence": "",
        "opt_out": False,
        "width": 0,
        "height": 0,
        "sha256": "",
        "phash": 0,
        "thumbnail": b"",
        "style": b"",
        "content": b"",
    }


def read_sample(
    position: int, sample: ShardSample, config: IngestConfig, reduced_px: int
) -> RowAndImage:
    """Decode and judge a sample, the cheap checks first.

    Args:
        position: In the shard.
        sample: The sample.
        config: Limits.
        reduced_px: Short side to which a large JPEG may be reduced while it is decoded.
    """

    def drop(reason: str) -> RowAndImage:
        return RowAndImage(dropped_row(position, sample.key, reason))

    data, caption, meta = image_member(sample), read_caption_member(sample), read_meta(sample)
    facts = read_metadata(meta)
    if not facts.downloaded:
        return drop("download_failed")
    if data is None:
        return drop("no_image")
    if config.caption_required and not caption:
        return drop("no_caption")
    try:
        decoded = decode_reduced(
            data, side=reduced_px, max_pixels=config.max_pixels, name=sample.key
        )
    except ImageError as error:
        return drop(error.reason)
    reason = _size_reason(decoded, config)
    if reason:
        return drop(reason)
    row = dropped_row(position, sample.key, "")
    row |= {
        "caption": caption,
        "meta": json.dumps(meta, sort_keys=True),
        "source": facts.source,
        "licence": facts.licence,
        "opt_out": facts.opt_out,
        "width": decoded.width,
        "height": decoded.height,
        "sha256": hashlib.sha256(data).hexdigest(),
        "phash": perceptual_hash(decoded.image),
        "thumbnail": thumbnail(decoded.image),
        "aesthetic": facts.aesthetic,
        "watermark": facts.watermark,
        "nsfw": facts.nsfw,
    }
    return RowAndImage(row, decoded.image)


def image_member(sample: ShardSample) -> bytes | None:
    """The sample's image file, None if it has none."""
    for extension in IMAGE_EXTENSIONS:
        if extension in sample.members:
            return sample.members[extension]
    return None


def read_caption_member(sample: ShardSample) -> str:
    """The caption from ``.txt`` or ``.caption``, else from the JSON's "caption"; "" without."""
    for extension in ("txt", "caption"):
        if extension in sample.members:
            caption = sample.members[extension].decode("utf-8-sig", "replace")
            break
    else:
        caption = replace_surrogates(str(read_meta(sample).get("caption") or ""))
    return " ".join(caption.replace("\0", " ").split())[:MAX_CAPTION_CHARS]


def read_meta(sample: ShardSample) -> dict[str, Any]:
    """The sample's JSON object; {} where it has none that can be read and written again."""
    try:
        value = json.loads(sample.members.get("json", b"{}"))
        json.dumps(value)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _size_reason(decoded: DecodedImage, config: IngestConfig) -> str:
    short, long = sorted((decoded.width, decoded.height))
    if short < config.min_side:
        return "too_small"
    return "extreme_aspect" if long > config.max_aspect * short else ""
