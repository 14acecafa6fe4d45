"""From shards to feature files with Ray: one row a sample with a single reason, whatever it is."""

import contextlib
import io
import json
import os
import pickle
import signal
import struct
import threading
import zlib
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
import ray
from PIL import Image

from i2l_model.errors import InputError
from jobs.mining.config import MiningConfig
from jobs.mining.feature_plan import plan_features
from jobs.mining.feature_schema import IGNORED_MEMBERS, SCHEMA
from jobs.mining.features import compute_features, feature_uri
from jobs.mining.samples import InputShard
from jobs.progress import NullProgress
from jobs.provenance import file_hash
from jobs.shards import ShardWriter
from tests import tiny_checkpoints
from tests.hostile_shards import Explosive

MAX_ACTOR_MIB = 500  # 150 for Ray and the libraries, the rest for a chunk and one picture
pytestmark = pytest.mark.usefixtures("ray_cluster")


def picture(width: int = 96, height: int = 64, seed: int = 0) -> Image.Image:
    small = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def bomb_header(width: int, height: int) -> bytes:
    """A PNG that claims to be large and holds no pixels."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(b"\0" * 10)))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )


def fault_table(exploded: Path) -> dict[str, tuple[str, dict[str, bytes]]]:
    """Key → (the reason that its row must have, members)."""
    text = {"txt": b"a ball"}
    turned = Image.Exif()
    turned[0x0112] = 6
    clear = picture().convert("RGBA")
    clear.putalpha(Image.linear_gradient("L").resize(clear.size))
    sixteen = Image.fromarray((np.arange(96 * 64, dtype=np.uint16) * 10).reshape(64, 96))
    jpeg = encoded(picture(), "JPEG")
    moving = {"save_all": True, "append_images": [picture(seed=1), picture(seed=2)]}
    evil = pickle.dumps(Explosive(exploded))
    return {
        "plain": ("", {"jpg": jpeg} | text),
        "cmyk": ("", {"jpg": encoded(picture().convert("CMYK"), "JPEG")} | text),
        "sixteen": ("", {"png": encoded(sixteen)} | text),
        "alpha": ("", {"webp": encoded(clear, "WEBP")} | text),
        "turned": ("", {"jpeg": encoded(picture(), "JPEG", exif=turned)} | text),
        "from_json": ("", {"jpg": jpeg, "json": b'{"caption": "a box", "status": "success"}'}),
        "from_caption": ("", {"jpg": jpeg, "caption": b"a box"}),
        "odd_json": ("", {"jpg": jpeg, "json": b"[" * 5000} | text),
        "evil": ("", {"jpg": jpeg, "pkl": evil, "pt": evil} | text),
        "corrupt": ("corrupt_image", {"jpg": b"\xff\xd8\xff" + b"x" * 500} | text),
        "cut": ("corrupt_image", {"jpg": jpeg[: len(jpeg) // 2]} | text),
        "gif": ("animated", {"gif": encoded(picture(), "GIF", **moving)} | text),
        "apng": ("animated", {"png": encoded(picture(), "PNG", **moving)} | text),
        "webp": ("animated", {"webp": encoded(picture(), "WEBP", **moving)} | text),
        "bomb": ("too_many_pixels", {"png": bomb_header(20_000, 10_000)} | text),
        "tiny": ("too_small", {"jpg": encoded(picture(31, 40), "JPEG")} | text),
        "strip": ("extreme_aspect", {"jpg": encoded(picture(400, 100), "JPEG")} | text),
        "silent": ("no_caption", {"jpg": jpeg}),
        "empty_text": ("no_caption", {"jpg": jpeg, "txt": b" \n"}),
        "blind": ("no_image", text),
        "failed": ("download_failed", {"json": b'{"status": "failed_to_download"}'}),
        "long_text": ("member_too_large", {"jpg": jpeg, "txt": b"x" * (2 << 20)}),
    }


def write_shard(folder: Path, samples: dict[str, dict[str, bytes]]) -> InputShard:
    with ShardWriter(str(folder), "s", max_bytes=1 << 40) as writer:
        for key, members in samples.items():
            writer.write(key, members)
    path = folder / "s-00000.tar"
    return InputShard(str(path), path.name, file_hash(str(path)), path.stat().st_size)


def features(config: MiningConfig, shards: list[InputShard], output: Path) -> list[Path]:
    """Compute what is missing; the feature files by shard."""
    plan = plan_features(config)
    compute_features(plan, config.workers, shards, str(output), NullProgress())
    return [Path(feature_uri(plan, shard, str(output))) for shard in shards]


def test_every_fault_is_one_row_with_its_reason(tmp_path: Path) -> None:
    table = fault_table(tmp_path / "exploded")
    shard = write_shard(tmp_path, {key: members for key, (_, members) in table.items()})
    (path,) = features(MiningConfig(workers={"num_ingest": 2}), [shard], tmp_path / "out")
    found = pq.read_table(path)
    assert found.schema.remove_metadata() == SCHEMA
    rows = found.to_pylist()
    assert [row["position"] for row in rows] == list(range(len(table)))
    assert {row["key"]: row["reason"] for row in rows} == {
        key: reason for key, (reason, _) in table.items()
    }
    assert json.loads(found.schema.metadata[IGNORED_MEMBERS]) == {"pkl": 1, "pt": 1}
    assert not (tmp_path / "exploded").exists()
    by_key = {row["key"]: row for row in rows}
    assert (by_key["turned"]["width"], by_key["turned"]["height"]) == (64, 96)
    assert all(bool(row["style"]) == bool(row["content"]) == (not row["reason"]) for row in rows)


def tiny_models(folder: Path) -> MiningConfig:
    tiny_checkpoints.csd(folder / "csd")
    tiny_checkpoints.dinov2(folder / "dinov2")
    tiny_checkpoints.clip(folder / "clip")
    tiny_checkpoints.classifier(folder / "watermark", ("clean", "watermark"))
    return MiningConfig.model_validate(
        {
            "style_encoder": {"name": "csd", "path": str(folder / "csd")},
            "content_encoder": {
                "name": "dinov2",
                "path": str(folder / "dinov2"),
                "text_path": str(folder / "clip"),
            },
            "scorers": {"watermark": str(folder / "watermark"), "nsfw": "skip"},
            "workers": {"num_ingest": 1},
        }
    )


@pytest.mark.slow
def test_models_and_scorers_fill_their_columns_in_pools_of_their_own(tmp_path: Path) -> None:
    config = tiny_models(tmp_path / "models")
    samples = {
        f"{number:03d}": {
            "jpg": encoded(picture(seed=number), "JPEG") if number % 7 else b"broken",
            "txt": b"a dog" if number % 2 else b"a cat",
            "json": b'{"aesthetic": 5.5, "pwatermark": 0.5, "artist": "A"}',
        }
        for number in range(150)
    }
    shard = write_shard(tmp_path, samples)
    (path,) = features(config, [shard], tmp_path / "out")
    rows = pq.read_table(path, schema=SCHEMA).to_pylist()
    kept = [row for row in rows if not row["reason"]]
    assert len(rows) == 150
    assert len(kept) == 150 - 22
    assert {len(row["style"]) for row in kept} == {2 * 24}
    assert {len(row["content"]) for row in kept} == {2 * (16 + 32)}
    assert {row["aesthetic"] for row in kept} == {5.5}
    assert all(row["source"] == "A" for row in kept)
    assert all(0 < row["watermark"] < 1 and row["watermark"] != 0.5 for row in kept)
    assert all(row["watermark"] is None and row["style"] == b"" for row in rows if row["reason"])
    (other,) = features(
        config.model_copy(update={"workers": config.workers.model_copy(update={"num_ingest": 3})}),
        [shard],
        tmp_path / "other",
    )
    assert other.read_bytes() == path.read_bytes()


def test_another_checkpoint_embeds_again_and_another_cut_does_not(tmp_path: Path) -> None:
    config = tiny_models(tmp_path)
    plan = plan_features(config)
    stricter = config.model_copy(
        update={"filters": config.filters.model_copy(update={"max_watermark": 0.1})}
    )
    assert plan_features(stricter).identity == plan.identity
    tiny_checkpoints.csd(tmp_path / "csd", seed=1)
    assert plan_features(config).identity != plan.identity


def test_a_missing_model_is_one_line_before_any_work(tmp_path: Path) -> None:
    config = MiningConfig(style_encoder={"name": "csd", "path": str(tmp_path / "none")})
    with pytest.raises(InputError, match=r"mining\.style_encoder\.path .*none\) is no folder"):
        plan_features(config)


def test_a_killed_worker_costs_nothing(tmp_path: Path) -> None:
    samples = {
        f"{number:04d}": {"jpg": encoded(picture(seed=number), "JPEG"), "txt": b"a ball"}
        for number in range(600)
    }
    shard = write_shard(tmp_path, samples)
    config = MiningConfig(workers={"num_ingest": 1})
    (whole,) = features(config, [shard], tmp_path / "whole")

    class Killer:
        def __init__(self) -> None:
            self.num_killed = 0

        def update(self, stage: str, done: int, total: int | None = None, note: str = "") -> None:
            if not self.num_killed and "kept" in note:
                self.num_killed = kill_ingest_actors()

    killer = Killer()
    plan = plan_features(config)
    compute_features(plan, config.workers, [shard], str(tmp_path / "killed"), killer)
    assert killer.num_killed
    killed = Path(feature_uri(plan, shard, str(tmp_path / "killed")))
    assert killed.read_bytes() == whole.read_bytes()


def ingest_actors() -> list[psutil.Process]:
    """Worker processes of this session's Ray that hold an ingest actor."""
    (raylet,) = ray.worker._global_node.all_processes["raylet"]
    return [
        process
        for process in psutil.Process(raylet.process.pid).children(recursive=True)
        if "IngestStage" in " ".join(process.cmdline())
    ]


def kill_ingest_actors() -> int:
    actors = ingest_actors()
    for process in actors:
        process.send_signal(signal.SIGKILL)
    return len(actors)


class PeakMemory:
    """The largest resident size of an ingest actor while the block runs, in MiB."""

    def __init__(self) -> None:
        self.mib = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def _sample(self) -> None:
        while not self._stop.wait(0.1):
            for process in ingest_actors():
                with contextlib.suppress(psutil.Error):
                    self.mib = max(self.mib, process.memory_info().rss / 2**20)

    def __enter__(self) -> "PeakMemory":
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stop.set()
        self._thread.join()


NUM_LARGE_IMAGES = int(os.environ.get("I2L_TEST_LARGE_IMAGES", "600"))
"""The full test has 4000."""


@pytest.mark.slow
def test_memory_of_an_actor_stays_bounded_on_a_shard_of_large_images(tmp_path: Path) -> None:
    """4 MP each; one of four is a PNG, which is always decoded in full."""
    pictures = [{"jpg": encoded(picture(2400, 1700, seed), "JPEG")} for seed in range(3)]
    flat = picture(8, 6).resize((2400, 1700), Image.Resampling.NEAREST)
    pictures.append({"png": encoded(flat)})
    samples = {
        f"{number:05d}": pictures[number % len(pictures)] | {"txt": b"a ball"}
        for number in range(NUM_LARGE_IMAGES)
    }
    shard = write_shard(tmp_path, samples)
    with PeakMemory() as peak:
        (path,) = features(MiningConfig(workers={"num_ingest": 1}), [shard], tmp_path / "out")
    assert pq.read_table(path).num_rows == NUM_LARGE_IMAGES
    print(f"peak of the ingest actor: {peak.mib:.0f} MiB")
    assert 50 < peak.mib < MAX_ACTOR_MIB
