"""Copies are found by bits and by pixels, and recoloured pictures are no copies."""

from pathlib import Path

import numpy as np
from PIL import Image

from jobs.corpus.render import render
from jobs.corpus.styles import sample_style
from jobs.mining.config import DedupConfig
from jobs.mining.dedup import drop_copies, drop_near_duplicates, hash_matches
from jobs.mining.hashing import perceptual_hash, thumbnail
from jobs.mining.neighbours import Neighbours
from jobs.mining.samples import Samples
from tests.feature_files import feature_row, reasons_of, samples_in


def samples_of(folder: Path, images: list[Image.Image], files: list[str]) -> Samples:
    rows = [
        feature_row(
            number,
            width=image.width,
            height=image.height,
            sha256=file * 64,
            phash=perceptual_hash(image),
            thumbnail=thumbnail(image),
        )
        for number, (image, file) in enumerate(zip(images, files, strict=True))
    ]
    return samples_in(folder, rows)


def drawn(content: str, style_id: int) -> Image.Image:
    return Image.fromarray(render(content, sample_style(style_id, 1), variant=1).image)


def test_copies_go_and_the_largest_stays(tmp_path: Path) -> None:
    image = drawn("fish", 0)
    large = image.resize((128, 128), Image.Resampling.LANCZOS)
    images = [image, large, image, drawn("house", 0), drawn("fish", 7)]
    samples = samples_of(tmp_path, images, ["a", "b", "a", "c", "d"])
    drop_copies(samples, DedupConfig())
    assert reasons_of(samples) == ["duplicate_picture", "", "duplicate_file", "", ""]


def test_recoloured_picture_of_equal_hash_stays(tmp_path: Path) -> None:
    pixels = np.asarray(drawn("star", 3))
    images = [
        Image.fromarray(pixels),
        Image.fromarray(np.ascontiguousarray(pixels[..., [0, 1, 1]])),
    ]
    samples = samples_of(tmp_path, images, ["a", "b"])
    samples.phash[:] = samples.phash[0]
    drop_copies(samples, DedupConfig(max_thumbnail_difference=0.5))
    assert reasons_of(samples) == ["", ""]


def test_hash_search_finds_all_within_the_distance() -> None:
    rng = np.random.default_rng(0)
    base = rng.integers(0, 2**63, 200, dtype=np.uint64)
    near = base ^ (np.uint64(1) << rng.integers(0, 64, 200).astype(np.uint64))
    for _ in range(3):
        near ^= np.uint64(1) << rng.integers(0, 64, 200).astype(np.uint64)
    hashes = np.concatenate([base, near])
    wanted = {
        (i, j)
        for i in range(400)
        for j in range(i + 1, 400)
        if int(hashes[i] ^ hashes[j]).bit_count() <= 4
    }
    assert set(map(tuple, hash_matches(hashes, 4).tolist())) == wanted
    assert len(wanted) >= 200


def test_near_duplicates_need_both_likenesses(tmp_path: Path) -> None:
    images = [drawn("fish", 0)] * 4
    samples = samples_of(tmp_path, images, list("abcd"))
    index = np.array([[1, 2], [0, 2], [0, 1], [0, 1]], np.int32)
    similarity = np.array([[0.99, 0.99], [0.99, 0.99], [0.99, 0.99], [0.5, 0.5]], np.float32)
    content = np.array([[1, 0], [1, 0], [0, 1], [1, 0]], np.float16)
    stays = drop_near_duplicates(
        samples, np.arange(4), Neighbours(index, similarity), content, DedupConfig()
    )
    assert stays.tolist() == [True, False, True, True]
    assert reasons_of(samples) == ["", "near_duplicate", "", ""]


def test_thousands_of_blank_pictures_are_few_comparisons(tmp_path: Path) -> None:
    grey = [Image.new("RGB", (64, 64), (40 * (n % 3),) * 3) for n in range(900)]
    rows = [
        feature_row(n, sha256=f"{n:064x}"[::-1], phash=7, thumbnail=thumbnail(image))
        for n, image in enumerate(grey)
    ]
    samples = samples_in(tmp_path, rows)
    drop_copies(samples, DedupConfig())
    assert np.flatnonzero(samples.is_kept()).tolist() == [0, 1, 2]
    assert samples.drop_counts() == {"duplicate_picture": 897}
