"""The one place where image bytes become pixels, and pixels become tensors or bytes.

Bytes come from strangers: the header is read and judged before anything is decoded, and every
failure is an ``ImageError`` with a ``reason`` slug under which callers count drops.
"""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageCms, ImageOps

from i2l_model.errors import InputError

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

MAX_PIXELS = 50_000_000
IMAGE_EXTENSIONS = ("jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff", "gif")
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "MPO")
_ORIENTATION, _TURNED = 0x0112, (5, 6, 7, 8)  # EXIF: turned by 90 or 270 degrees
_FIXES = {
    "corrupt_image": "replace it with an intact JPEG, PNG, WebP, BMP, TIFF or still GIF",
    "too_many_pixels": "scale it down or raise max_pixels",
    "animated": "save one frame as a still image",
}


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """An upright image of mode "RGB", and the size that it has in the file."""

    image: Image.Image
    width: int
    height: int


class ImageError(InputError):
    """An image that cannot be used.

    Attributes:
        reason: Slug for counting: "corrupt_image", "too_many_pixels" or "animated".
    """

    def __init__(self, field: str, value: object, reason: str, problem: str) -> None:
        super().__init__(field, value, problem, _FIXES[reason])
        self.reason = reason

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.field, self.value, self.reason, self.problem)


def decode_image(
    data: bytes, *, max_pixels: int = MAX_PIXELS, field: str = "image", name: str = ""
) -> Image.Image:
    """Decode one still image to 8-bit sRGB.

    EXIF orientation is applied, ICC profiles and CMYK become sRGB, transparency is laid over
    white and 16-bit or float samples are scaled to 8 bits.

    Args:
        data: The file's bytes.
        max_pixels: Largest width × height that is decoded; the header is checked first.
        field: What the image is to the user, for the error message.
        name: The image's name or path, for the error message; its size in bytes by default.

    Returns:
        An image of mode "RGB".

    Raises:
        ImageError: If the image is corrupt, animated or too large.
    """
    return decode_reduced(data, max_pixels=max_pixels, field=field, name=name).image


def decode_reduced(
    data: bytes,
    *,
    side: int = 0,
    max_pixels: int = MAX_PIXELS,
    field: str = "image",
    name: str = "",
) -> DecodedImage:
    """Decode as ``decode_image`` does; a JPEG far larger than needed in a fraction of the time.

    Args:
        data: The file's bytes.
        side: A JPEG may be decoded at a half, a quarter or an eighth of its size as long as its
            short side keeps this length; 0 decodes in full.
        max_pixels: As for ``decode_image``, and of the size in the file.
        field: As for ``decode_image``.
        name: As for ``decode_image``.

    Raises:
        ImageError: If the image is corrupt, animated or too large.
    """
    value = name or f"{len(data)} bytes"
    image = _opened(data, max_pixels, field, value)
    try:
        if image.format != "MPO" and getattr(image, "is_animated", False):
            raise ImageError(field, value, "animated", "has several frames")
        size = image.size
        if side and image.format == "JPEG":
            image.draft(None, (side, side))
        image.load()
        is_turned = image.getexif().get(_ORIENTATION) in _TURNED
        upright = _to_rgb(image)
    except ImageError:
        raise
    except Exception as error:
        raise ImageError(
            field, value, "corrupt_image", f"cannot be decoded ({type(error).__name__})"
        ) from error
    width, height = reversed(size) if is_turned else size
    return DecodedImage(upright, width, height)


def _opened(data: bytes, max_pixels: int, field: str, value: str) -> Image.Image:
    """The image with its header read, and no pixel decoded."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data), formats=_FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ImageError(field, value, "too_many_pixels", "has too many pixels") from None
    except Exception as error:  # Pillow's parsers raise nearly any type on hostile bytes
        raise ImageError(
            field, value, "corrupt_image", f"is no readable image ({type(error).__name__})"
        ) from error
    width, height = image.size
    if width * height > max_pixels:
        problem = f"has {width}x{height} pixels, over the limit of {max_pixels}"
        raise ImageError(field, value, "too_many_pixels", problem)
    return image


def load_image(path: str | Path, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode a local file as ``decode_image`` does.

    Raises:
        InputError: If the file does not exist or is no usable image.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError("image", path, "does not exist", "give the path of an image file")
    return decode_image(path.read_bytes(), max_pixels=max_pixels, name=str(path))


def _to_rgb(image: Image.Image) -> Image.Image:
    profile = image.info.get("icc_profile")
    image = ImageOps.exif_transpose(image)
    image = _to_eight_bits(image)
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        flat = Image.new("RGB", rgba.size, (255, 255, 255))
        flat.paste(rgba, mask=rgba.getchannel("A"))
        return _from_profile(flat, profile) if image.mode == "RGBA" else flat
    return _from_profile(image, profile)


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """Scale integer and float greyscale to mode "L"; other modes pass."""
    if image.mode not in ("I", "F") and not image.mode.startswith("I;16"):
        return image
    values = np.asarray(image, dtype=np.float32)
    values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    if image.mode == "F":
        full_scale = 1.0 if values.max(initial=0.0) <= 1.0 else 255.0
    else:
        full_scale = 65535.0
    scaled = np.clip(values / full_scale, 0, 1) * 255 + 0.5
    return Image.fromarray(scaled.astype(np.uint8))


def _from_profile(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Convert to sRGB by the embedded profile; without a usable one, by Pillow's defaults."""
    if profile and image.mode in ("RGB", "CMYK", "L", "LAB"):
        try:
            converted = ImageCms.profileToProfile(
                image,
                ImageCms.ImageCmsProfile(io.BytesIO(profile)),
                ImageCms.createProfile("sRGB"),
                outputMode="RGB",
            )
            if converted is not None:
                return converted
        except (ImageCms.PyCMSError, OSError, ValueError) as error:
            logger.warning("colour profile ignored: %s", error)
    return image.convert("RGB")


def to_tensor(images: Sequence[Image.Image], size: int) -> torch.Tensor:
    """Crop the centre square, resize and normalise.

    Args:
        images: N images of mode "RGB", any sizes.
        size: Side of the result in pixels.

    Returns:
        float32 (N, 3, size, size) in [-1, 1].
    """
    import torch  # here, so that mining's workers start without it

    if not images:
        return torch.zeros(0, 3, size, size)
    pixels = np.stack([np.asarray(fit_square(image, size)) for image in images])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1


def to_images(images: torch.Tensor) -> list[Image.Image]:
    """Turn (N, 3, H, W) in [-1, 1] (values outside are clipped) into N images of mode "RGB"."""
    pixels = ((images.detach().float().clamp(-1, 1) + 1) * 127.5).round().byte()
    return [Image.fromarray(array) for array in pixels.permute(0, 2, 3, 1).cpu().numpy()]


def fit_square(image: Image.Image, size: int) -> Image.Image:
    """The centre square, resized to ``size`` pixels (Lanczos)."""
    return fit(image, size, size)


def fit(image: Image.Image, width: int, height: int) -> Image.Image:
    """The largest centred part of that aspect ratio, resized (Lanczos); sizes in pixels."""
    return ImageOps.fit(image, (width, height), method=Image.Resampling.LANCZOS)


def encode_jpeg(image: Image.Image, quality: int = 95) -> bytes:
    """JPEG bytes at 4:4:4, so that thin coloured strokes survive; equal pixels, equal bytes."""
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "JPEG", quality=quality, subsampling=0)
    return buffer.getvalue()
