"""Mining on object storage gives, through faults, the bytes that mining on local disks gives."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from jobs import storage
from jobs.corpus.stylegrid import CorpusConfig, write_corpus
from jobs.progress import NullProgress
from tests.fault_proxy import Fault, FaultProxy
from tests.hostile_shards import hostile_shards
from tests.s3_servers import S3Server

pytestmark = pytest.mark.slow

PLACE_OF_THE_RUN = "run.json"  # says where and when, and differs
SETTINGS = (
    "mining.split.min_test_styles=1",
    "mining.workers.num_ingest=1",
)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labelled styles, and every shard that nobody should have made."""
    folder = tmp_path_factory.mktemp("input")
    config = CorpusConfig(num_styles=16, images_per_style=8, seed=5)
    write_corpus(config, str(folder), NullProgress())
    image = b"no picture, which is a fault of its own"
    for shard in hostile_shards(image, folder / "exploded"):
        (folder / shard.name).write_bytes(shard.data)
    return folder


@pytest.fixture(scope="module")
def local_files(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The output of a run on local disks."""
    output = tmp_path_factory.mktemp("local") / "pairs"
    mine(str(shards), str(output), output.parent)
    return files_below(output)


def mine(source: str, output: str, folder: Path, **environment: str) -> None:
    command = [sys.executable, "-m", "pipelines.cli.main", "mine", "--input", source]
    settings = [part for setting in SETTINGS for part in ("--set", setting)]
    found = subprocess.run(
        [*command, "--output", output, *settings],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env=os.environ | environment,
    )
    assert found.returncode == 0, found.stderr


def files_below(folder: Path) -> dict[str, bytes]:
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*")}
    return {
        name: path.read_bytes()
        for name, path in files.items()
        if path.is_file() and name != PLACE_OF_THE_RUN
    }


def test_the_output_is_the_same_on_any_storage(
    s3_server: S3Server, shards: Path, local_files: dict[str, bytes], tmp_path: Path
) -> None:
    bucket = s3_server.new_bucket()
    storage.upload_folder(shards, f"{bucket}/in")
    faults = [
        # Fewer than AWS_MAX_ATTEMPTS in all, should they hit the same request.
        Fault("status", "GET", times=2),
        Fault("reset", "GET", r"\.tar", after_bytes=50_000),
        Fault("truncate", "GET", r"\.tar", after_bytes=20_000),
        Fault("status", "PUT", times=2),
        Fault("reset_upload", "PUT", times=2, after_bytes=1000),
    ]
    with FaultProxy(s3_server.endpoint, faults) as proxy:
        environment = s3_server.behind(proxy.endpoint).environment | {"AWS_MAX_ATTEMPTS": "5"}
        mine(f"{bucket}/in", f"{bucket}/pairs", tmp_path, **environment)
        assert sum(fault.times for fault in faults) == 0
    storage.download_folder(f"{bucket}/pairs", tmp_path / "pairs")
    found = files_below(tmp_path / "pairs")
    assert sorted(found) == sorted(local_files)
    assert [name for name in found if found[name] != local_files[name]] == []
    assert not (shards / "exploded").exists()
