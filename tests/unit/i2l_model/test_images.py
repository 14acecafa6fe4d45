"""Decoding is where strangers' bytes come in: normalisation, limits and reasons."""

import contextlib
import io
import pickle
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from i2l_model.errors import InputError
from i2l_model.images import (
    ImageError,
    decode_image,
    decode_reduced,
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
    head = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + png_chunk(b"IDAT", zlib.compress(b"\0" * 10))


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


def png_chunk(kind: bytes, body: bytes) -> bytes:
    crc = zlib.crc32(kind + body)
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", crc)


def png_with(kind: bytes, body: bytes) -> bytes:
    """A small intact PNG with one more chunk behind its header."""
    data = encoded(gradient())
    return data[:33] + png_chunk(kind, body) + data[33:]


def test_200_megapixels_cost_no_memory() -> None:
    tracemalloc.start()
    for data in (png_header(20_000, 10_000), tiff_header(20_000, 10_000)):
        with pytest.raises(ImageError) as caught:
            decode_image(data)
        assert caught.value.reason == "too_many_pixels"
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def tiff_header(width: int, height: int) -> bytes:
    """A TIFF that claims to be large and holds no pixels."""
    tags = [(256, 4, width), (257, 4, height), (258, 3, 8), (259, 3, 1), (262, 3, 1)]
    tags += [(273, 4, 8), (277, 3, 1), (278, 4, height), (279, 4, width * height)]
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + struct.pack("<I", 0)


def test_a_raised_limit_still_refuses_what_pillow_calls_a_bomb() -> None:
    with pytest.raises(ImageError) as caught:
        decode_image(png_header(12_000, 12_000), max_pixels=10**9)
    assert caught.value.reason == "too_many_pixels"


@pytest.mark.parametrize(
    ("kind", "prefix"),
    [(b"zTXt", b"note\0\0"), (b"iCCP", b"profile\0\0"), (b"iTXt", b"k\0\1\0\0\0")],
)
def test_bombs_in_text_and_profile_chunks_are_not_unpacked(kind: bytes, prefix: bytes) -> None:
    bomb = prefix + zlib.compress(b"\0" * (200 << 20), 9)
    tracemalloc.start()
    with contextlib.suppress(ImageError):  # refused, or shown without the chunk: both are fine
        decode_image(png_with(kind, bomb))
    assert tracemalloc.get_traced_memory()[1] < 16 << 20
    tracemalloc.stop()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"])
def test_cut_and_damaged_files_are_corrupt_or_decoded_but_never_another_error(kind: str) -> None:
    data = encoded(gradient(64, 64), kind)
    rng = np.random.default_rng(0)
    with pytest.raises(ImageError) as caught:
        decode_image(data[: len(data) * 2 // 3])
    assert caught.value.reason == "corrupt_image"
    for _ in range(40):
        damaged = bytearray(data)
        for place in rng.integers(0, len(data), 4):
            damaged[place] = rng.integers(0, 256)
        with contextlib.suppress(ImageError):
            assert decode_image(bytes(damaged)).mode == "RGB"


def test_sixteen_bit_colour_and_grey_with_alpha() -> None:
    rows = b"".join(b"\0" + struct.pack(">6H", 65535, 0, 32768, 0, 65535, 257) for _ in range(2))
    head = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 2, 16, 2, 0, 0, 0))
    data = b"\x89PNG\r\n\x1a\n" + head + png_chunk(b"IDAT", zlib.compress(rows))
    decoded = decode_image(data + png_chunk(b"IEND", b""))
    assert decoded.getpixel((0, 0)) == (255, 0, 128)
    clear = decode_image(encoded(Image.new("LA", (2, 2), (40, 0))))
    assert clear.getpixel((1, 1)) == (255, 255, 255)


def test_cmyk_with_a_profile_and_adobe_inversion() -> None:
    ink = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    red = np.asarray(decode_image(encoded(ink, "JPEG")), dtype=int).mean(axis=(0, 1))
    assert red[0] > 200
    assert red[1:].max() < 80


def test_reduced_decoding_keeps_the_size_of_the_file_and_looks_the_same() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(gradient(800, 600), "JPEG", exif=exif)
    reduced = decode_reduced(data, side=100)
    assert (reduced.width, reduced.height) == (600, 800)
    assert reduced.image.size == (150, 200)
    full = decode_image(data).resize((150, 200), Image.Resampling.BOX)
    difference = np.asarray(full, dtype=int) - np.asarray(reduced.image, dtype=int)
    assert np.abs(difference).mean() < 3
    assert decode_reduced(data, side=400).image.size == (600, 800)
    assert decode_reduced(encoded(gradient(800, 600)), side=100).image.size == (800, 600)


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
