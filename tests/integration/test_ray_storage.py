"""The filesystem that Ray Train keeps its records on, over real S3 servers."""

import pickle

import pyarrow.fs
import pytest

from jobs import storage
from jobs.training.ray_storage import ray_filesystem
from tests.fault_proxy import Fault, FaultProxy
from tests.s3_servers import S3Server

PATIENCE_S = 60


def test_records_are_written_read_and_deleted(s3_server: S3Server) -> None:
    bucket = s3_server.new_bucket()
    filesystem = pickle.loads(pickle.dumps(ray_filesystem(PATIENCE_S)))
    assert filesystem == ray_filesystem(PATIENCE_S)
    root = bucket.removeprefix("s3://")
    filesystem.create_dir(f"{root}/run")
    with filesystem.open_output_stream(f"{root}/run/state.json") as stream:
        stream.write(b"{}")
    with filesystem.open_output_stream(f"{root}/run/empty"):
        pass
    with filesystem.open_input_stream(f"{root}/run/state.json") as stream:
        assert stream.read() == b"{}"
    kinds = [filesystem.get_file_info(f"{root}/{name}").type for name in ("run", "run/empty", "no")]
    wanted = pyarrow.fs.FileType
    assert kinds == [wanted.Directory, wanted.File, wanted.NotFound]
    filesystem.delete_dir(f"{root}/run")
    assert not storage.exists(f"{bucket}/run")


def test_a_record_waits_for_a_server_that_is_away(
    s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = s3_server.new_bucket()
    with FaultProxy(s3_server.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
        proxy.faults = [Fault("status", "PUT", "state", times=2)]
        path = f"{bucket.removeprefix('s3://')}/state"
        with ray_filesystem(PATIENCE_S).open_output_stream(path) as stream:
            stream.write(b"kept")
        assert proxy.faults[0].times == 0
        assert storage.read_bytes(f"s3://{path}") == b"kept"
