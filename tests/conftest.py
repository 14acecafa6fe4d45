"""Fixtures shared by all tests: one local Ray and an isolated workspace."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import s3_servers
from tests.s3_servers import S3Server

# Read by the libraries when they are imported, hence set before any of them is.
_ENVIRONMENT = {
    "DAGSTER_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_OFFLINE": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "OMP_NUM_THREADS": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "TOKENIZERS_PARALLELISM": "false",
}
_CPU_ENVIRONMENT = {"CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu"}

# What every Python that the tests start finds: its settings, and this checkout's packages.
_INTERPRETER = Path(__file__).with_name("interpreter")
_PYTHONPATH = (str(_INTERPRETER), str(Path(__file__).parents[1]))

# More logical CPUs than small machines have: Ray Train's workers hold theirs while Ray Data runs.
RAY_NUM_CPUS = 6
RAY_OBJECT_STORE_BYTES = 400 * 1024**2


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Spread files with ``--dist loadfile``, see `file_scheduling`."""
    if config.option.dist != "loadfile":
        return None
    from tests.file_scheduling import SharingFileScheduling

    return SharingFileScheduling(config, log)


def _selects_gpu(markexpr: str) -> bool:
    return "gpu" in markexpr and "not gpu" not in markexpr


def pytest_configure(config: pytest.Config) -> None:
    """Set the environment; without ``-m gpu`` no test sees a GPU, on any machine."""
    defaults = dict(_ENVIRONMENT)
    if not _selects_gpu(config.option.markexpr):
        defaults |= _CPU_ENVIRONMENT
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    there = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    others = [path for path in there if path and path not in _PYTHONPATH]
    os.environ["PYTHONPATH"] = os.pathsep.join((*_PYTHONPATH, *others))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what lies in tests/gpu, and skip it where there is no GPU."""
    gpu_folder = Path(__file__).parent / "gpu"
    for item in items:
        if gpu_folder in item.path.parents:
            item.add_marker(pytest.mark.gpu)
    if not _selects_gpu(config.option.markexpr):
        return
    import torch

    if not torch.cuda.is_available():
        skip = pytest.mark.skip(reason="torch sees no CUDA device")
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(skip)


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """A local Ray for the whole session; starting one takes about ten seconds."""
    import ray

    ray.init(
        address="local",
        num_cpus=RAY_NUM_CPUS,
        object_store_memory=RAY_OBJECT_STORE_BYTES,
        include_dashboard=False,
        log_to_driver=False,
        _node_ip_address="127.0.0.1",
    )
    yield
    ray.shutdown()


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder as the current one, and no service of the user's environment in reach."""
    for name in ("AWS_ENDPOINT_URL", "DAGSTER_HOME", "MLFLOW_TRACKING_URI", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "workspace"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(scope="session")
def moto_server() -> Iterator[S3Server]:
    """A moto server for the whole session; see ``s3_server``."""
    with s3_servers.moto() as server:
        yield server


@pytest.fixture(scope="session")
def rclone_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """An ``rclone serve s3`` for the whole session; see ``s3_server``."""
    with s3_servers.rclone(tmp_path_factory.mktemp("rclone")) as server:
        yield server


@pytest.fixture(params=["moto", "rclone"])
def s3_server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """Each server in turn, set in the environment of this process and of those it starts."""
    server: S3Server = request.getfixturevalue(f"{request.param}_server")
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    return server
