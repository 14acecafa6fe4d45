"""Object storage against real servers, and against a proxy that breaks what passes through it."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import botocore.endpoint
import pytest

from i2l_model.errors import InputError
from jobs import storage
from jobs.shards import ShardWriter, list_shards, read_shard
from jobs.storage import StorageError, s3_client, s3_stream
from pipelines.cli.main import run
from tests.fault_proxy import Fault, FaultProxy
from tests.s3_servers import S3Server

MIB = 1 << 20
DATA = hashlib.shake_256(b"data").digest(3 * MIB + 17)
ODD_NAMES = (
    "with space.tar",
    "a+b%20c&d=e.tar",
    "ünï/名前.tar",
    "q'\"<>.tar",
    "#hash?.tar",
    "x/y.tar",
)


@pytest.fixture(params=["local", "moto", "rclone"])
def root(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty place on each kind of storage."""
    if request.param == "local":
        return str(tmp_path / "root")
    server: S3Server = request.getfixturevalue(f"{request.param}_server")
    use(server, monkeypatch)
    return f"{server.new_bucket()}/root"


def use(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def proxy(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    """A proxy before each server, with short timeouts and pauses."""
    monkeypatch.setattr(s3_client, "READ_TIMEOUT_S", 1)
    monkeypatch.setattr(s3_client, "CONNECT_TIMEOUT_S", 2)
    monkeypatch.setattr(s3_stream, "_MAX_PAUSE_S", 0.05)
    monkeypatch.setattr(botocore.endpoint, "time", SimpleNamespace(sleep=lambda _: None))
    s3_client.forget_clients()
    with FaultProxy(s3_server.endpoint) as proxy:
        use(s3_server.behind(proxy.endpoint), monkeypatch)
        yield proxy
    s3_client.forget_clients()


@pytest.fixture
def uri(s3_server: S3Server, proxy: FaultProxy) -> str:
    """An object of three MiB."""
    bucket = s3_server.new_bucket()
    s3_server.client().put_object(Bucket=bucket.removeprefix("s3://"), Key="x.bin", Body=DATA)
    return f"{bucket}/x.bin"


def test_odd_names_and_prefixes_are_kept_apart(root: str) -> None:
    for name in (*ODD_NAMES, "x/y.tar.txt", "x/.hidden.tar"):
        storage.write_bytes(storage.join_uri(root, name), name.encode())
    storage.write_bytes(f"{root}-other/z.tar", b"z")
    uris = storage.list_files(root, ".tar")
    assert {uri.removeprefix(f"{storage.absolute_uri(root)}/") for uri in uris} == {*ODD_NAMES}
    assert uris == sorted(uris)
    assert all(f"{root}/{storage.read_bytes(u).decode()}" == u for u in uris)
    assert storage.list_files(root, ".tar", name_prefix="x/") == [f"{root}/x/y.tar"]
    storage.delete(root)
    assert not storage.exists(root)
    assert storage.read_bytes(f"{root}-other/z.tar") == b"z"


def test_listing_and_deleting_go_beyond_one_page(root: str) -> None:
    names = [f"{root}/{number:05d}.tar" for number in range(1010)]
    storage.write_bytes(names[0], b"x")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(storage.write_bytes, names, [b"x"] * len(names)))
    assert storage.list_files(root) == names
    assert list_shards(f"{root}/{{000,01}}*[05].tar") == [
        name for name in names if name[-9:-7] == "01" or name[-9:-6] == "000" if name[-5] in "05"
    ]
    storage.delete(root)
    assert not storage.exists(root)


def test_a_large_file_goes_up_in_parts(root: str) -> None:
    data = DATA * 7
    storage.write_bytes(f"{root}/large.bin", data)
    assert storage.file_size(f"{root}/large.bin") == len(data)
    with storage.open_read(f"{root}/large.bin") as stream:
        assert hashlib.sha256(stream.read()).digest() == hashlib.sha256(data).digest()


def test_large_members_that_are_not_read_are_passed_over(root: str) -> None:
    with ShardWriter(root) as writer:
        writer.write("a", {"jpg": b"a", "pkl": DATA})
        writer.write("b", {"jpg": b"b", "json": DATA})
        writer.write("c", {"jpg": b"c"})
    ignored: list[str] = []
    samples = read_shard(writer.shards[0].uri, on_ignore=ignored.append)
    assert [(s.key, s.members) for s in samples] == [("a", {"jpg": b"a"}), ("c", {"jpg": b"c"})]
    assert ignored == ["pkl"]


def test_servers_without_checksums_are_served(
    s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
    monkeypatch.setenv("AWS_RESPONSE_CHECKSUM_VALIDATION", "when_required")
    for size in (100, 10 * MIB):
        uri = f"{s3_server.new_bucket()}/x"
        storage.write_bytes(uri, bytes(size))
        assert storage.read_bytes(uri) == bytes(size)
        storage.delete(uri)


def test_shards_are_the_same_wherever_they_lie(root: str, tmp_path: Path) -> None:
    for folder in (root, str(tmp_path / "twin")):
        with ShardWriter(folder, "s", 40_000) as writer:
            for number in range(20):
                members = {"jpg": DATA[: 500 * number], "txt": b"t", "pkl": DATA[:2000]}
                writer.write(f"k{number}", members)
    found, twins = list_shards(f"{root}/s-*.tar"), list_shards(str(tmp_path / "twin"))
    assert [storage.read_bytes(uri) for uri in found] == [storage.read_bytes(t) for t in twins]
    assert len(found) > 1
    assert sum(len(list(read_shard(uri))) for uri in found) == 20


def test_one_client_serves_threads_and_each_process_has_its_own(s3_server: S3Server) -> None:
    bucket = s3_server.new_bucket()
    storage.write_bytes(f"{bucket}/x", DATA)
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(storage.read_bytes, [f"{bucket}/x"] * 16)) == {DATA}
    child = os.fork()
    if child == 0:
        os._exit(0 if storage.read_bytes(f"{bucket}/x") == DATA else 1)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize(
    "fault",
    [
        Fault("status", times=2),
        Fault("status", times=2, status=429, code="TooManyRequests"),
        Fault("status", times=2, status=500, code="InternalError"),
        Fault("reset", after_bytes=0),
        Fault("reset", after_bytes=100_000, times=2),
        Fault("reset", after_bytes=2 * MIB),
        Fault("truncate", after_bytes=1_500_000),
        Fault("stall", after_bytes=1_000_000),
        Fault("stall", after_bytes=0),
    ],
    ids=lambda f: f"{f.kind}-{f.status}-{f.after_bytes}",
)
def test_a_read_survives(proxy: FaultProxy, uri: str, fault: Fault) -> None:
    proxy.faults = [Fault(**vars(fault))]
    with storage.open_read(uri) as stream:
        assert stream.read(10) + stream.read() == DATA
    assert proxy.faults[0].times == 0


@pytest.mark.parametrize("hidden", [(), ("content-range",), ("content-range", "etag")])
def test_a_broken_read_goes_on_where_it_broke(
    proxy: FaultProxy, uri: str, hidden: tuple[str, ...]
) -> None:
    proxy.hidden_headers = hidden
    assert_resumed_twice(proxy, uri)


@pytest.mark.parametrize("s3_server", ["moto"], indirect=True)  # rclone has the range signed
@pytest.mark.parametrize("hidden", [(), ("etag",)])
def test_a_server_that_ignores_ranges_is_read_right(
    proxy: FaultProxy, uri: str, hidden: tuple[str, ...]
) -> None:
    proxy.hidden_headers, proxy.ignore_range = hidden, True
    assert_resumed_twice(proxy, uri)


def assert_resumed_twice(proxy: FaultProxy, uri: str) -> None:
    proxy.faults = [Fault("truncate", after_bytes=2 * MIB), Fault("reset", after_bytes=500_000)]
    assert storage.read_bytes(uri) == DATA
    offsets = [int(r.removeprefix("bytes=").rstrip("-")) for _, _, r in proxy.requests if r]
    assert len(offsets) == 2
    assert offsets[0] == 2 * MIB <= offsets[1]


def test_an_object_that_is_replaced_while_it_is_read_is_an_error(
    s3_server: S3Server, proxy: FaultProxy, uri: str
) -> None:
    bucket, key = uri.removeprefix("s3://").split("/")
    proxy.faults = [Fault("truncate", after_bytes=2 * MIB)]
    with storage.open_read(uri) as stream:
        stream.read(10)  # and what fits the buffer, which is less than passes
        s3_server.client().put_object(Bucket=bucket, Key=key, Body=DATA[::-1])
        with pytest.raises(InputError, match="was replaced while it was read"):
            stream.read()


def test_a_server_that_keeps_failing_is_one_line(proxy: FaultProxy, uri: str) -> None:
    for fault in (
        Fault("status", times=99),
        Fault("reset", times=99, after_bytes=1000),
        Fault("truncate", times=99, after_bytes=1000),
    ):
        proxy.faults = [fault]
        proxy.requests.clear()
        with pytest.raises(StorageError, match="failed after retries") as caught:
            storage.read_bytes(uri)
        assert str(caught.value).startswith(uri)
        assert "\n" not in str(caught.value)
        assert len(proxy.requests) == 3  # AWS_MAX_ATTEMPTS


def test_an_upload_survives(s3_server: S3Server, proxy: FaultProxy, uri: str) -> None:
    for fault in (
        Fault("status", "PUT", times=2),
        Fault("reset_upload", "PUT", times=2, after_bytes=500_000),
    ):
        proxy.faults = [fault]
        storage.write_bytes(uri, DATA[::-1])
        assert s3_server_bytes(s3_server, uri) == DATA[::-1]
        assert fault.times == 0
        storage.write_bytes(uri, DATA)


def s3_server_bytes(server: S3Server, uri: str) -> bytes:
    bucket, key = uri.removeprefix("s3://").split("/", 1)
    body: bytes = server.client().get_object(Bucket=bucket, Key=key)["Body"].read()
    return body


def open_uploads(client: Any, bucket: str) -> list[Any]:
    try:
        return list(client.list_multipart_uploads(Bucket=bucket).get("Uploads", []))
    except client.exceptions.NoSuchUpload:  # what rclone says where there are none
        return []


@pytest.mark.parametrize("size", [MIB, 20 * MIB])
def test_a_failed_upload_leaves_the_old_object_and_no_parts(
    s3_server: S3Server, proxy: FaultProxy, uri: str, size: int
) -> None:
    proxy.faults = [Fault("reset_upload", "PUT", times=999, after_bytes=300_000)]
    with pytest.raises((StorageError, InputError)):
        storage.write_bytes(uri, bytes(size))
    with pytest.raises((StorageError, InputError)):
        storage.write_bytes(f"{uri}-new", bytes(size))
    assert s3_server_bytes(s3_server, uri) == DATA
    client, bucket = s3_server.client(), uri.removeprefix("s3://").split("/")[0]
    listed = client.list_objects_v2(Bucket=bucket)["Contents"]
    assert [entry["Key"] for entry in listed] == ["x.bin"]
    assert open_uploads(client, bucket) == []


KILLED_UPLOAD = """
import os, sys
from jobs import storage
storage.write_bytes(sys.argv[1], bytes(40 << 20))
"""


def test_a_killed_upload_leaves_nothing_under_the_name(
    s3_server: S3Server, proxy: FaultProxy, uri: str
) -> None:
    child: list[subprocess.Popen[bytes]] = []
    parts: list[str] = []

    def kill_at_the_third_part(method: str, path: str) -> None:
        if method == "PUT" and "partNumber" in path:
            parts.append(path)
            if len(parts) == 3:
                child[0].kill()

    proxy.before_request = kill_at_the_third_part
    command = [sys.executable, "-c", KILLED_UPLOAD, f"{uri}-new"]
    child.append(subprocess.Popen(command))
    assert child[0].wait() == -9
    assert not storage.exists(f"{uri}-new")
    assert storage.list_files(uri.rpartition("/")[0]) == [uri]


def test_objects_are_deleted_one_by_one_where_the_server_knows_no_batches(
    proxy: FaultProxy, uri: str
) -> None:
    folder = uri.replace("x.bin", "folder")
    for number in range(5):
        storage.write_bytes(f"{folder}/.{number}", b"x")
    proxy.faults = [Fault("status", "POST", r"\?delete", status=501, code="NotImplemented")]
    storage.delete(folder)
    assert not storage.exists(folder)
    assert storage.exists(uri)


@pytest.mark.parametrize(
    ("kind", "code", "problem"),
    [
        (403, "AccessDenied", "was refused by the server"),
        (403, "ExpiredToken", "was refused by the server"),
        (301, "PermanentRedirect", "lies in another region"),
        (404, "NoSuchBucket", "names a missing bucket"),
        (404, "NoSuchKey", "does not exist"),
        (411, "MissingContentLength", "refuses checksum trailers .* AWS_REQUEST_CHECKSUM"),
    ],
)
def test_what_the_user_can_change_is_an_input_error(
    proxy: FaultProxy, uri: str, kind: int, code: str, problem: str
) -> None:
    proxy.faults = [
        Fault("status", method, times=9, status=kind, code=code) for method in ("GET", "PUT")
    ]
    for action in (storage.read_bytes, lambda uri: storage.write_bytes(uri, b"x")):
        with pytest.raises(InputError, match=problem.replace(" .* ", ".*")) as caught:
            action(uri)
        assert caught.value.value == uri
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("trouble", ["denied", "bucket", "endpoint", "failing"])
def test_the_command_line_names_the_trouble_in_one_line(
    rclone_server: S3Server,
    trouble: str,
    workspace: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    use(rclone_server, monkeypatch)
    uri = rclone_server.new_bucket()
    with FaultProxy(rclone_server.endpoint) as proxy:
        if trouble == "denied":
            monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-the-secret")
        elif trouble == "bucket":
            uri = "s3://no-such-bucket/shards"
        elif trouble == "endpoint":
            monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
            monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        else:
            monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
            proxy.faults = [Fault("status", times=999)]
        code = run(["mine", "--input", uri, "--output", "pairs"])
    words = {
        "denied": "was refused by the server",
        "bucket": "names a missing bucket",
        "endpoint": "cannot be reached",
        "failing": "failed after retries",
    }
    first, *more = capsys.readouterr().err.strip().splitlines()
    assert words[trouble] in first
    assert uri in first
    if trouble == "failing":  # nothing that the user has to change: a failure with a hint
        assert (code, len(more)) == (1, 1)
    else:
        assert (code, more) == (2, [])
    assert not Path("pairs").exists()
