"""Copies are found by bits and by pixels, and recoloured pictures are no copies."""

import numpy as np
from PIL import Image

from jobs.corpus.render import render
from jobs.corpus.styles import sample_style
from jobs.mining.config import DedupConfig
from jobs.mining.dedup import drop_copies, drop_near_duplicates, hash_matches
from jobs.mining.features import Samples
from jobs.mining.hashing import perceptual_hash, thumbnail
from jobs.mining.neighbours import Neighbours


def samples_of(images: list[Image.Image], files: list[str]) -> Samples:
    count = len(images)
    vectors = np.ones((count, 2), dtype=np.float16)
    return Samples(
        shard=["s"] * count,
        key=[str(i) for i in range(count)],
        reason=[""] * count,
        caption=[""] * count,
        meta=["{}"] * count,
        size=np.array([image.size for image in images]),
        sha256=files,
        phash=np.array([perceptual_hash(image) for image in images], dtype=np.uint64),
        thumbnail=[thumbnail(image) for image in images],
        embedded=np.arange(count),
        style=vectors,
        content=vectors,
    )


def drawn(content: str, style_id: int) -> Image.Image:
    return Image.fromarray(render(content, sample_style(style_id, 1), variant=1).image)


def test_copies_go_and_the_largest_stays() -> None:
    image = drawn("fish", 0)
    large = image.resize((128, 128), Image.Resampling.LANCZOS)
    images = [image, large, image, drawn("house", 0), drawn("fish", 7)]
    samples = samples_of(images, ["a", "b", "a", "c", "d"])
    drop_copies(samples, DedupConfig())
    assert samples.reason == ["duplicate_picture", "", "duplicate_file", "", ""]


def test_recoloured_picture_of_equal_hash_stays() -> None:
    pixels = np.asarray(drawn("star", 3))
    images = [
        Image.fromarray(pixels),
        Image.fromarray(np.ascontiguousarray(pixels[..., [0, 1, 1]])),
    ]
    samples = samples_of(images, ["a", "b"])
    samples.phash[:] = samples.phash[0]
    drop_copies(samples, DedupConfig(max_thumbnail_difference=0.5))
    assert samples.reason == ["", ""]


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
    assert set(hash_matches(hashes, 4)) == wanted
    assert len(wanted) >= 200


def test_near_duplicates_need_both_likenesses() -> None:
    images = [drawn("fish", 0)] * 4
    samples = samples_of(images, list("abcd"))
    index = np.array([[1, 2], [0, 2], [0, 1], [0, 1]])
    similarity = np.array([[0.99, 0.99], [0.99, 0.99], [0.99, 0.99], [0.5, 0.5]], np.float32)
    content = np.array([[1, 0], [1, 0], [0, 1], [1, 0]], np.float32)
    stays = drop_near_duplicates(
        samples, np.arange(4), Neighbours(index, similarity), content, DedupConfig()
    )
    assert stays.tolist() == [True, False, True, True]
    assert samples.reason == ["", "near_duplicate", "", ""]
