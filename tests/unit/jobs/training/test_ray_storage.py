import pytest

from jobs import storage
from jobs.training import ray_storage


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What the storage was asked to write, all of which fails."""
    asked: list[bytes] = []

    def write(uri: str, data: bytes) -> None:
        asked.append(data)
        raise storage.StorageError("no answer")

    monkeypatch.setattr(ray_storage.storage, "write_bytes", write)
    return asked


def test_a_record_that_could_not_be_written_is_not_tried_again(written: list[bytes]) -> None:
    stream = ray_storage.ray_filesystem(patience_s=0).open_output_stream("bucket/state")
    stream.write(b"whole")
    with pytest.raises(OSError, match="no answer"):
        stream.close()
    del stream
    assert written == [b"whole"]


def test_a_record_that_was_not_closed_is_not_written(written: list[bytes]) -> None:
    stream = ray_storage.ray_filesystem(patience_s=0).open_output_stream("bucket/state")
    stream.write(b"half")
    del stream
    assert written == []
