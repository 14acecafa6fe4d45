"""One behaviour for paths and for S3."""

from pathlib import Path

import pytest

from i2l_model.errors import InputError
from jobs import storage
from tests.s3_servers import S3Server


@pytest.fixture
def s3_bucket(moto_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    for name, value in moto_server.environment.items():
        monkeypatch.setenv(name, value)
    return moto_server.new_bucket()


@pytest.fixture(params=["path", "file", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "s3":
        bucket = request.getfixturevalue("s3_bucket")
        return f"{bucket}/root"
    folder = tmp_path / "with space"
    folder.mkdir()
    return folder.as_uri() if request.param == "file" else str(folder)


def test_bytes_come_back(root: str) -> None:
    uri = storage.join_uri(root, "a", "b.bin")
    assert not storage.exists(uri)
    storage.write_bytes(uri, b"one")
    storage.write_bytes(uri, b"two!")
    assert storage.exists(uri)
    assert storage.read_bytes(uri) == b"two!"
    assert storage.file_size(uri) == 4
    storage.delete(uri)
    assert not storage.exists(uri)


def test_stream_reads_in_pieces(root: str) -> None:
    uri = storage.join_uri(root, "long.bin")
    data = bytes(range(256)) * 20_000
    storage.write_bytes(uri, data)
    with storage.open_read(uri) as stream:
        assert stream.read(512) == data[:512]
        assert stream.read(3_000_000) == data[512:3_000_512]
        assert stream.read() == data[3_000_512:]
        assert stream.read(1) == b""


def test_listing_is_sorted_deep_and_by_suffix(root: str) -> None:
    for name in ("z.tar", "deep/er/a.tar", "deep/b.txt", ".hidden.tar"):
        storage.write_bytes(storage.join_uri(root, name), b"x")
    names = [uri[len(storage.absolute_uri(root)) :] for uri in storage.list_files(root, ".tar")]
    assert names == ["/deep/er/a.tar", "/z.tar"]


def write_half(uri: str) -> None:
    with storage.open_write(uri) as stream:
        stream.write(b"half of the new")
        stream.write(None)  # type: ignore[arg-type]


def test_a_failed_write_leaves_the_old_file(root: str) -> None:
    uri = storage.join_uri(root, "kept.bin")
    storage.write_bytes(uri, b"old")
    with pytest.raises(TypeError):
        write_half(uri)
    assert storage.read_bytes(uri) == b"old"
    assert len(storage.list_files(root)) == 1


def test_folders_travel(root: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    (source / "sub" / "x.bin").write_bytes(b"x")
    (source / "y.bin").write_bytes(b"y")
    storage.upload_folder(source, root)
    target = storage.download_folder(root, tmp_path / "target")
    assert (target / "sub" / "x.bin").read_bytes() == b"x"
    assert (target / "y.bin").read_bytes() == b"y"
    storage.delete(root)
    assert not storage.exists(storage.join_uri(root, "y.bin"))


@pytest.mark.parametrize("name", ["a//b", "../b", "a/./b"])
def test_objects_whose_names_are_no_file_names_stay_away(
    s3_bucket: str, moto_server: S3Server, tmp_path: Path, name: str
) -> None:
    bucket = s3_bucket.removeprefix("s3://")
    moto_server.client().put_object(Bucket=bucket, Key=f"folder/{name}", Body=b"x")
    (uri,) = storage.list_files(f"{s3_bucket}/folder")
    assert storage.read_bytes(uri) == b"x"
    with pytest.raises(InputError, match="no file name"):
        storage.download_folder(f"{s3_bucket}/folder", tmp_path / "deep" / "target")
    assert list(tmp_path.iterdir()) == []


def test_folder_marks_are_no_files(s3_bucket: str, moto_server: S3Server) -> None:
    bucket = s3_bucket.removeprefix("s3://")
    moto_server.client().put_object(Bucket=bucket, Key="folder/", Body=b"")
    moto_server.client().put_object(Bucket=bucket, Key="folder/x.tar", Body=b"x")
    assert storage.list_files(s3_bucket) == [f"{s3_bucket}/folder/x.tar"]
    storage.delete(f"{s3_bucket}/folder")
    assert not storage.exists(f"{s3_bucket}/folder")


def test_file_uris_may_hold_any_letter(tmp_path: Path) -> None:
    for name in ("a b?c#d.tar", "100%.tar"):
        path = tmp_path / name
        storage.write_bytes(path.as_uri(), b"x")
        assert path.read_bytes() == b"x"
    assert storage.local_path(f"file://localhost{tmp_path}") == tmp_path
    assert storage.local_path("file:///a?b#c") == Path("/a?b#c")
    with pytest.raises(InputError, match="names the host"):
        storage.local_path("file://elsewhere/x")


def test_missing_things_are_input_errors(root: str) -> None:
    with pytest.raises(InputError, match="does not exist"):
        storage.read_bytes(storage.join_uri(root, "none.bin"))
    with pytest.raises(InputError, match="does not exist"):
        storage.file_size(storage.join_uri(root, "none.bin"))


def test_missing_bucket_and_folder_are_named(s3_bucket: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="missing bucket"):
        storage.list_files("s3://no-such-bucket/x")
    with pytest.raises(InputError, match="not an existing folder"):
        storage.list_files(tmp_path / "none")


@pytest.mark.parametrize("uri", ["gs://bucket/x", "http://host/x", ""])
def test_unknown_schemes_are_refused(uri: str) -> None:
    with pytest.raises(InputError):
        storage.local_path(uri)


def test_local_uris_do_not_depend_on_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    uri = storage.absolute_uri("shards")
    monkeypatch.chdir("/")
    assert uri == str(tmp_path / "shards")
    assert storage.absolute_uri("s3://bucket/x/") == "s3://bucket/x"


def test_inside_is_told_through_links_and_dots(tmp_path: Path) -> None:
    (tmp_path / "real" / "sub").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    real = str(tmp_path / "real")
    for uri in (real, f"{real}/x.tar", f"{real}/sub/../x.tar", tmp_path / "link" / "x.tar"):
        assert storage.is_inside(uri, real)
    assert storage.is_inside((tmp_path / "real").as_uri(), real)
    assert not storage.is_inside(f"{real}-other/x.tar", real)
    assert not storage.is_inside(tmp_path, real)
    assert storage.is_inside("s3://bucket/a/x.tar", "s3://bucket/a/")
    assert not storage.is_inside("s3://bucket/ab/x.tar", "s3://bucket/a")
    assert not storage.is_inside("s3://bucket/a", real)


@pytest.mark.parametrize("name", ["file/x.bin", "file/deeper/x.bin", "folder", "n" * 300])
def test_places_that_cannot_be_written_are_input_errors(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder" / "sub").mkdir(parents=True)
    with pytest.raises(InputError, match="cannot be written") as caught:
        storage.write_bytes(tmp_path / name, b"x")
    assert caught.value.value == tmp_path / name
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_errors_of_the_writer_itself_pass(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="full"), storage.open_write(tmp_path / "x.bin"):
        raise OSError(28, "disk full")
