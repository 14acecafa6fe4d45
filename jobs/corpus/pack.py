"""Packs a folder of pictures as WebDataset shards: the way a team's own images come in.

``photo.jpg`` becomes a sample with ``photo.txt`` beside it as its caption; without one the JSON
sidecar's "caption" is used, without that the words of the file name. Equal folders give equal
shards.
"""

import io
import json
import logging
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from i2l_model.errors import InputError
from i2l_model.images import IMAGE_EXTENSIONS, ImageError, decode_image
from jobs import storage
from jobs.progress import Progress
from jobs.shards import ShardInfo, ShardWriter, remove_shards
from jobs.surrogates import replace_surrogates

logger = logging.getLogger(__name__)

MANIFEST_NAME = "pack.json"
_STORED_AS_IS = {"JPEG": "jpg", "PNG": "png"}
_MAX_SIDECAR_BYTES = 1 << 20
_MAX_EXAMPLES = 5


class PackConfig(BaseModel):
    """What is packed and how."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_side: int = Field(32, ge=1, description="Shortest side in pixels; smaller are dropped.")
    max_pixels: int = Field(50_000_000, ge=1, description="Width × height, checked in the header.")
    max_file_mib: int = Field(64, ge=1, description="Largest image file in MiB.")
    caption_from_name: bool = Field(
        True, description="Use the words of the file name where no sidecar has a caption."
    )
    shard_mib: int = Field(64, ge=1, description="Size of a shard in MiB.")


@dataclass(frozen=True, slots=True)
class PackResult:
    """What was packed.

    Attributes:
        uri: Folder of the shards.
        shards: The shards, in order.
        num_images: Packed images.
        drops: Images left out, by reason.
        examples: A few file names for each reason.
    """

    uri: str
    shards: tuple[ShardInfo, ...]
    num_images: int
    drops: dict[str, int]
    examples: dict[str, list[str]]

    @property
    def num_shards(self) -> int:
        """Number of shards written."""
        return len(self.shards)


class _DroppedError(Exception):
    """A picture that is left out; the message is the reason."""


@dataclass(slots=True)
class _Drops:
    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def add(self, name: str, reason: str) -> None:
        self.counts[reason] += 1
        names = self.examples.setdefault(reason, [])
        if len(names) < _MAX_EXAMPLES:
            names.append(name)


def run_pack(
    config: PackConfig, folder: str | Path, output_uri: str, progress: Progress
) -> PackResult:
    """Pack all pictures below ``folder`` into ``<output_uri>/pack-00000.tar`` and on.

    Reasons for leaving a picture out: "corrupt_image", "animated", "too_many_pixels",
    "too_small", "file_too_large", "bad_sidecar" (unreadable text or JSON), "no_caption".

    Shards that were packed before stay until the first usable picture is found.

    Raises:
        InputError: If the folder does not exist, or holds no usable picture, or the output has
            the pictures of another folder.
    """
    root = storage.local_path(folder).resolve()
    output_uri = storage.absolute_uri(output_uri)
    if not root.is_dir():
        raise InputError("folder", folder, "is not an existing folder", "give a folder of images")
    paths = _pictures(root)
    if not paths:
        kinds = ", ".join(IMAGE_EXTENSIONS)
        raise InputError("folder", folder, "holds no pictures", f"add files of type {kinds}")
    _require_same_source(root, output_uri)
    drops = _Drops()
    keys = _keys(paths, root)
    num_images = 0
    with ShardWriter(output_uri, "pack", config.shard_mib << 20) as writer:
        for done, path in enumerate(paths, start=1):
            name = replace_surrogates(path.relative_to(root).as_posix())
            try:
                members = _members(path, name, config)
            except _DroppedError as reason:
                drops.add(name, str(reason))
            else:
                if not num_images:
                    _remove_old(output_uri)
                writer.write(keys[path], members)
                num_images += 1
            progress.update("pack", done, len(paths))
    counts = dict(sorted(drops.counts.items()))
    if not num_images:
        problem = f"holds no usable picture ({_listed(counts)})"
        raise InputError("folder", folder, problem, "replace the files that were left out")
    if counts:
        logger.warning("left out of %s: %s", root, _listed(counts))
    result = PackResult(output_uri, tuple(writer.shards), num_images, counts, drops.examples)
    _write_manifest(result, config, root)
    return result


def _pictures(root: Path) -> list[Path]:
    """All image files below ``root`` in the order of their relative names, hidden ones left out."""
    suffixes = {f".{extension}" for extension in IMAGE_EXTENSIONS}
    found = [
        path
        for path in root.rglob("*")
        if path.suffix.lower() in suffixes
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(root).parts)
    ]
    return sorted(found, key=lambda path: path.relative_to(root).as_posix())


def _keys(paths: list[Path], root: Path) -> dict[Path, str]:
    """A sample key for each file: its relative name without suffix; equal ones get a number."""
    keys: dict[Path, str] = {}
    taken: set[str] = set()
    for path in paths:
        stem = replace_surrogates(path.relative_to(root).with_suffix("").as_posix())
        base = re.sub(r"[.\s]+", "_", stem).strip("_") or "image"
        key, number = base, 1
        while key in taken:
            number += 1
            key = f"{base}_{number}"
        taken.add(key)
        keys[path] = key
    return keys


def _members(path: Path, name: str, config: PackConfig) -> dict[str, bytes]:
    """Image, caption and JSON of one picture.

    Raises:
        _DroppedError: With the reason, if the picture is left out.
    """
    if path.stat().st_size > config.max_file_mib << 20:
        raise _DroppedError("file_too_large")
    data = path.read_bytes()
    try:
        image = decode_image(data, max_pixels=config.max_pixels, name=name)
    except ImageError as error:
        raise _DroppedError(error.reason) from error
    if min(image.size) < config.min_side:
        raise _DroppedError("too_small")
    meta = _json_sidecar(path)
    caption = _caption(path, meta, config)
    if not caption:
        raise _DroppedError("no_caption")
    extension, stored = _stored_image(data, image)
    described = json.dumps({**meta, "file_name": name}, sort_keys=True, ensure_ascii=False)
    return {
        extension: stored,
        "txt": caption.encode(),
        "json": replace_surrogates(described).encode(),
    }


def _stored_image(data: bytes, image: Image.Image) -> tuple[str, bytes]:
    """JPEG and PNG files as they are; other formats as PNG of the decoded picture."""
    with Image.open(io.BytesIO(data)) as header:
        extension = _STORED_AS_IS.get(header.format or "")
    if extension:
        return extension, data
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return "png", buffer.getvalue()


def _sidecar(path: Path, suffix: str) -> str | None:
    """Text of the file beside ``path``; None if there is none."""
    sidecar = path.with_suffix(suffix)
    if not sidecar.is_file():
        return None
    if sidecar.stat().st_size > _MAX_SIDECAR_BYTES:
        raise _DroppedError("bad_sidecar")
    try:
        return sidecar.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise _DroppedError("bad_sidecar") from error


def _json_sidecar(path: Path) -> dict[str, Any]:
    text = _sidecar(path, ".json")
    if text is None:
        return {}
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _DroppedError("bad_sidecar") from error
    if not isinstance(value, dict):
        raise _DroppedError("bad_sidecar")
    return value


def _caption(path: Path, meta: Mapping[str, Any], config: PackConfig) -> str:
    text = _sidecar(path, ".txt")
    if text is None:
        text = str(meta.get("caption") or "")
    caption = " ".join(replace_surrogates(text).split())
    return caption or (caption_of_name(path.stem) if config.caption_from_name else "")


def caption_of_name(stem: str) -> str:
    """Words of a file name: "red_fox-02" → "red fox"; "" where no word is left ("IMG_1234")."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", stem)
    words = re.findall(r"[^\W\d_]+", spaced)
    camera = {"img", "dsc", "dscn", "dscf", "pxl", "image", "picture", "photo", "screenshot"}
    kept = [word for word in words if word.lower() not in camera]
    return " ".join(kept).lower() if any(len(word) > 1 for word in kept) else ""


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{reason} {count}" for reason, count in counts.items())


def _remove_old(output_uri: str) -> None:
    """Remove the shards of an earlier run, so that the folder holds this run's only."""
    storage.delete(storage.join_uri(output_uri, MANIFEST_NAME))
    remove_shards(output_uri, "pack")


def _require_same_source(root: Path, output_uri: str) -> None:
    """Raise if the output has the pictures of another folder, which packing would replace."""
    uri = storage.join_uri(output_uri, MANIFEST_NAME)
    if not storage.exists(uri):
        return
    ours = replace_surrogates(str(root))
    try:
        source = json.loads(storage.read_bytes(uri)).get("source", ours)
    except (ValueError, AttributeError) as error:
        problem = f"holds a {MANIFEST_NAME} that is none of i2l pack"
        raise InputError("output", output_uri, problem, "give an empty folder") from error
    if source != ours:
        problem = f"holds the pictures of {source}"
        raise InputError("output", output_uri, problem, "give an empty folder or remove it")


def _write_manifest(result: PackResult, config: PackConfig, root: Path) -> None:
    """Write ``pack.json``, last: the sign that the run is complete."""
    manifest = {
        "schema": "i2l.pack/1",
        "source": replace_surrogates(str(root)),
        "num_images": result.num_images,
        "drops": result.drops,
        "examples": result.examples,
        "config": config.model_dump(mode="json"),
        "shards": [
            {"name": s.uri.rsplit("/", 1)[-1], "sha256": s.sha256, "size": s.size}
            for s in result.shards
        ],
    }
    text = json.dumps(manifest, indent=2, sort_keys=True, ensure_ascii=False)
    storage.write_bytes(storage.join_uri(result.uri, MANIFEST_NAME), text.encode())
