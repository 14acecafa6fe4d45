"""Decoding is where strangers' bytes come in: normalisation, limits and reasons."""

import io
import pickle
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from i2l_model.errors import InputError
from i2l_model.images import (
    ImageError,
    decode_image,
    encode_jpeg,
    load_image,
    to_images,
    to_tensor,
)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def gradient(width: int = 12, height: int = 8) -> Image.Image:
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, 255 - x], axis=-1).astype(np.uint8))


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims to be large and holds no pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        crc = zlib.crc32(kind + body)
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", crc)

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0" * 10))


def test_exif_orientation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees
    turned = decode_image(encoded(gradient(12, 8), "JPEG", exif=exif))
    assert turned.size == (8, 12)


def test_transparency_lies_over_white() -> None:
    image = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    image.putpixel((0, 0), (255, 0, 0, 255))
    decoded = decode_image(encoded(image))
    assert decoded.mode == "RGB"
    assert decoded.getpixel((0, 0)) == (255, 0, 0)
    assert decoded.getpixel((3, 3)) == (255, 255, 255)


def test_palette_with_transparent_entry_lies_over_white() -> None:
    image = Image.new("P", (4, 4), 0)
    image.putpalette([10, 20, 30] + [0] * 765)
    assert decode_image(encoded(image, transparency=0)).getpixel((0, 0)) == (255, 255, 255)


def test_sixteen_bit_grey_is_scaled() -> None:
    values = np.array([[0, 32768, 65535]], dtype=np.uint16)
    decoded = np.asarray(decode_image(encoded(Image.fromarray(values))))
    assert decoded[0, :, 0].tolist() == [0, 128, 255]


def test_cmyk_becomes_rgb() -> None:
    white = Image.new("CMYK", (8, 8), (0, 0, 0, 0))
    decoded = decode_image(encoded(white, "JPEG"))
    assert decoded.mode == "RGB"
    assert min(decoded.getpixel((4, 4))) > 245


def test_colour_profile_is_applied_and_a_broken_one_ignored() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    plain = np.asarray(gradient(), dtype=int)
    same = np.asarray(decode_image(encoded(gradient(), icc_profile=profile)), dtype=int)
    assert np.abs(same - plain).max() <= 2
    broken = np.asarray(decode_image(encoded(gradient(), icc_profile=b"nonsense")), dtype=int)
    assert (broken == plain).all()


@pytest.mark.parametrize("data", [b"", b"not an image", encoded(gradient(64, 64))[:120]])
def test_damaged_bytes_have_a_reason(data: bytes) -> None:
    with pytest.raises(ImageError) as caught:
        decode_image(data, name="fox.png")
    assert caught.value.reason == "corrupt_image"
    assert "fox.png" in str(caught.value)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_animated_is_refused_and_still_is_not(kind: str) -> None:
    still = encoded(gradient(), kind)
    assert decode_image(still).size == (12, 8)
    other = Image.new("RGB", (12, 8), (0, 200, 0))
    moving = encoded(gradient(), kind, save_all=True, append_images=[other])
    with pytest.raises(ImageError) as caught:
        decode_image(moving)
    assert caught.value.reason == "animated"


@pytest.mark.parametrize(("width", "height"), [(8000, 8000), (60000, 60000)])
def test_size_is_judged_by_the_header(width: int, height: int) -> None:
    with pytest.raises(ImageError) as caught:
        decode_image(png_header(width, height))
    assert caught.value.reason == "too_many_pixels"


def test_error_survives_pickling() -> None:
    error = ImageError("image", "a.png", "animated", "has several frames")
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.reason, str(copy)) == (error.reason, str(error))


def test_missing_file_is_an_input_error(tmp_path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        load_image(tmp_path / "none.png")


def test_tensor_is_centre_crop_in_range() -> None:
    wide = Image.new("RGB", (30, 10), (255, 0, 0))
    wide.paste((0, 0, 255), (10, 0, 20, 10))
    tensor = to_tensor([wide, wide], 10)
    assert tensor.shape == (2, 3, 10, 10)
    assert tensor[0, 2].mean() > 0.95
    assert tensor[0, 0].mean() < -0.95
    assert to_tensor([], 10).shape == (0, 3, 10, 10)


def test_images_and_tensors_are_inverse_at_equal_size() -> None:
    image = gradient(16, 16)
    (back,) = to_images(to_tensor([image], 16))
    assert (np.asarray(back) == np.asarray(image)).all()
    (clipped,) = to_images(torch.full((1, 3, 2, 2), 7.0))
    assert clipped.getpixel((0, 0)) == (255, 255, 255)


def test_jpeg_keeps_colour_resolution_and_is_repeatable() -> None:
    data = encode_jpeg(gradient(32, 32))
    assert data == encode_jpeg(gradient(32, 32))
    image = Image.open(io.BytesIO(data))
    assert {component[1:3] for component in image.layer} == {(1, 1)}
