"""The fault table of shards: each costs its own samples, on every kind of storage."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from i2l_model.images import encode_jpeg
from jobs import storage
from jobs.shards import list_shards, read_shard
from tests.hostile_shards import HostileShard, hostile_shards
from tests.s3_servers import S3Server


@pytest.fixture(scope="module")
def image() -> bytes:
    pixels = np.random.default_rng(0).integers(0, 255, (96, 96, 3), dtype=np.uint8)
    return encode_jpeg(Image.fromarray(pixels), quality=90)


def assert_read_right(uri: str, shard: HostileShard) -> None:
    drops: list[tuple[str, str]] = []
    ignored: Counter[str] = Counter()
    samples = read_shard(uri, lambda *drop: drops.append(drop), lambda kind: ignored.update([kind]))
    assert [sample.key for sample in samples] == list(shard.kept)
    assert drops == list(shard.drops)
    assert ignored == shard.ignored


def test_locally(image: bytes, tmp_path: Path) -> None:
    for shard in hostile_shards(image, tmp_path / "exploded"):
        (tmp_path / shard.name).write_bytes(shard.data)
        assert_read_right(str(tmp_path / shard.name), shard)
    assert not (tmp_path / "exploded").exists()


def test_from_servers(image: bytes, tmp_path: Path, s3_server: S3Server) -> None:
    bucket = s3_server.new_bucket()
    shards = {shard.name: shard for shard in hostile_shards(image, tmp_path / "exploded")}
    for name, shard in shards.items():
        storage.write_bytes(f"{bucket}/{name}", shard.data)
    uris = list_shards(bucket)
    assert {uri.removeprefix(f"{bucket}/") for uri in uris} == set(shards)
    for uri in uris:
        assert_read_right(uri, shards[uri.removeprefix(f"{bucket}/")])
    assert not (tmp_path / "exploded").exists()
