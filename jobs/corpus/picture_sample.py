"""One picture of a folder as a sample: image, caption and JSON, or the reason to leave it out."""

import hashlib
import io
import json
import os
import re
import stat
from collections.abc import Mapping
from typing import Any

from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from i2l_model.images import ImageError, decode_image
from jobs.corpus.picture_files import (
    SIDECAR_SUFFIXES,
    UNUSABLE,
    FileState,
    PictureFile,
    file_state,
)
from jobs.surrogates import replace_surrogates

_STORED_AS_IS = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp"}
_MAX_SIDECAR_BYTES = 1 << 20
_CAMERA_WORDS = {
    "img", "dsc", "dscn", "dscf", "pxl", "image", "picture", "photo", "screenshot",
}  # fmt: skip


class PackConfig(BaseModel):
    """What is packed and how."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_side: int = Field(32, ge=1, description="Shortest side in pixels; smaller are dropped.")
    max_pixels: int = Field(50_000_000, ge=1, description="Width × height, checked in the header.")
    max_file_mib: int = Field(64, ge=1, description="Largest image file in MiB.")
    caption_from_name: bool = Field(
        True, description="Use the words of the file name where no sidecar has a caption."
    )
    source_from_folder: bool = Field(
        False,
        description="Write the name of the first folder as the picture's source (one folder an "
        "artist), by which mining caps and splits. Off, since folders are often labels.",
    )
    follow_links: bool = Field(
        False, description="Pack what links to files lead to; links to folders never count."
    )
    shard_mib: int = Field(
        64, ge=1, description="Size of a shard in MiB; larger only where files become PNG."
    )
    num_workers: int = Field(
        default_factory=lambda: os.cpu_count() or 1, ge=1, description="Processes that pack."
    )


class LeftOutError(Exception):
    """A picture that is left out; the message is the reason."""


def read_sample(root: str, file: PictureFile, config: PackConfig) -> dict[str, bytes]:
    """Image, caption ("txt") and JSON of one picture.

    The JSON is the sidecar's with ``file_name``, ``width``, ``height`` and ``sha256`` of the
    stored image.

    Raises:
        LeftOutError: "file_too_large", "corrupt_image", "animated", "too_many_pixels",
            "too_small", "bad_sidecar" (a link, too long, no UTF-8, no JSON object), "no_caption",
            "unreadable", "changed" (since the folder was listed).
    """
    if file.state.size > config.max_file_mib << 20:
        raise LeftOutError("file_too_large")
    data = _read(os.path.join(root, file.name), file.state, config)
    try:
        image = decode_image(data, max_pixels=config.max_pixels, name=replace_surrogates(file.name))
    except ImageError as error:
        raise LeftOutError(error.reason) from error
    if min(image.size) < config.min_side:
        raise LeftOutError("too_small")
    text, described = (_sidecar(root, file, number, config) for number in (0, 1))
    meta = _json_object(described) if described is not None else {}
    caption = _caption(text, meta, file, config)
    if not caption:
        raise LeftOutError("no_caption")
    extension, stored = _stored_image(data, image)
    return {
        extension: stored,
        "txt": caption.encode(),
        "json": _described(meta, file, image.size, stored, config),
    }


def _read(path: str, expected: FileState, config: PackConfig) -> bytes:
    """The file's bytes, if it is still the one that was listed."""
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC  # a pipe put in its place must not block
    try:
        descriptor = os.open(path, flags | (0 if config.follow_links else os.O_NOFOLLOW))
        with os.fdopen(descriptor, "rb") as stream:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise LeftOutError("changed")
            data = stream.read(expected.size + 1)
            found = os.fstat(descriptor)
    except FileNotFoundError as error:
        raise LeftOutError("changed") from error
    except OSError as error:
        raise LeftOutError("unreadable") from error
    if len(data) != expected.size or file_state(found) != expected:
        raise LeftOutError("changed")
    return data


def _sidecar(root: str, file: PictureFile, number: int, config: PackConfig) -> str | None:
    """Text of a file beside the picture; None if there is none."""
    state = file.sidecars[number]
    if state is None:
        return None
    if state.size == UNUSABLE or state.size > _MAX_SIDECAR_BYTES:
        raise LeftOutError("bad_sidecar")
    stem = os.path.splitext(os.path.join(root, file.name))[0]
    try:
        return _read(stem + SIDECAR_SUFFIXES[number], state, config).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise LeftOutError("bad_sidecar") from error


def _json_object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise LeftOutError("bad_sidecar") from error
    if not isinstance(value, dict):
        raise LeftOutError("bad_sidecar")
    return value


def _caption(
    text: str | None, meta: Mapping[str, Any], file: PictureFile, config: PackConfig
) -> str:
    if text is None:
        text = str(meta.get("caption") or "")
    caption = " ".join(replace_surrogates(text).split())
    if caption or not config.caption_from_name:
        return caption
    return caption_of_name(replace_surrogates(os.path.splitext(os.path.basename(file.name))[0]))


def caption_of_name(stem: str) -> str:
    """Words of a file name: "red_fox-02" → "red fox"; "" where no word is left ("IMG_1234")."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", stem)
    words = re.findall(r"[^\W\d_]+", spaced)
    kept = [word for word in words if word.lower() not in _CAMERA_WORDS]
    return " ".join(kept).lower() if any(len(word) > 1 for word in kept) else ""


def _stored_image(data: bytes, image: Image.Image) -> tuple[str, bytes]:
    """JPEG, PNG and WebP files as they are; other formats as PNG of the decoded picture."""
    with Image.open(io.BytesIO(data)) as header:
        extension = _STORED_AS_IS.get(header.format or "")
    if extension:
        return extension, data
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return "png", buffer.getvalue()


def _described(
    meta: Mapping[str, Any],
    file: PictureFile,
    size: tuple[int, int],
    stored: bytes,
    config: PackConfig,
) -> bytes:
    own: dict[str, Any] = {
        "file_name": file.name,
        "width": size[0],
        "height": size[1],
        "sha256": hashlib.sha256(stored).hexdigest(),
    }
    folder, slash, _ = file.name.partition("/")
    if config.source_from_folder and slash:
        own["source"] = folder
    try:
        text = json.dumps({**meta, **own}, sort_keys=True, ensure_ascii=False, allow_nan=False)
    except (ValueError, RecursionError) as error:  # NaN is no JSON
        raise LeftOutError("bad_sidecar") from error
    return replace_surrogates(text).encode()
