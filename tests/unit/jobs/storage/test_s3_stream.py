"""What servers answer to a ranged request, and how long a broken stream is kept alive."""

import io
from typing import Any

import botocore.exceptions
import pytest

from jobs.storage import StorageError, s3_stream
from jobs.storage.s3_stream import ObjectStream

DATA = bytes(range(256)) * 20_000  # 5 MB


class Body(io.BytesIO):
    """Breaks behind ``limit`` bytes."""

    def __init__(self, data: bytes, limit: int) -> None:
        super().__init__(data)
        self._limit = limit

    def read(self, size: int | None = -1) -> bytes:
        if self.tell() >= self._limit:
            raise botocore.exceptions.ReadTimeoutError(endpoint_url="http://x")
        left = self._limit - self.tell()
        return super().read(left if size is None or size < 0 else min(size, left))


class Server:
    """Stands for the client: every answer breaks behind ``limit`` bytes."""

    def __init__(self, limit: int, *, ranged: bool = True, length: bool = True) -> None:
        self._limit, self._ranged, self._length = limit, ranged, length
        self.offsets: list[int] = []

    def get_object(self, Range: str = "bytes=0-", **_: Any) -> dict[str, Any]:
        start = int(Range.removeprefix("bytes=").rstrip("-"))
        self.offsets.append(start)
        data = DATA[start:] if self._ranged else DATA
        answer = {
            "Body": Body(data, self._limit),
            "ETag": '"x"',
            "ResponseMetadata": {"HTTPStatusCode": 206 if start and self._ranged else 200},
        }
        return answer | ({"ContentLength": len(data)} if self._length else {})


def read(server: Server, monkeypatch: pytest.MonkeyPatch) -> bytes:
    monkeypatch.setattr(s3_stream.s3_client, "client", lambda **_: server)
    monkeypatch.setattr(s3_stream.s3_client, "max_attempts", lambda: 3)
    monkeypatch.setattr(s3_stream.time, "sleep", lambda _: None)
    with io.BufferedReader(ObjectStream("s3://bucket/x")) as stream:
        return stream.read()


def test_a_stream_that_gets_on_is_kept_alive_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(limit=1 << 20)
    assert read(server, monkeypatch) == DATA
    assert len(server.offsets) == 5


def test_a_stream_that_does_not_get_on_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    for server in (Server(limit=1000), Server(limit=0), Server(limit=1 << 20, ranged=False)):
        with pytest.raises(StorageError, match="failed after retries"):
            read(server, monkeypatch)
        assert len(server.offsets) <= 4


def test_without_a_length_the_status_tells_a_part_from_the_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for ranged in (True, False):
        answer = Server(9, ranged=ranged, length=False).get_object(Range="bytes=77-")
        assert s3_stream._place(answer, 77, None) == (77 if ranged else 0, None)


@pytest.mark.parametrize(
    ("answer", "place"),
    [
        ({"ContentRange": "bytes 70-99/100", "ContentLength": 30}, (70, 100)),
        ({"ContentRange": "bytes 70-99/*", "ContentLength": 30}, (70, None)),
        ({"ContentRange": "bytes 0-99/100", "ContentLength": 100}, (0, 100)),
        ({"ContentRange": "bytes 70-89/100", "ContentLength": 20}, (None, 100)),
        ({"ContentRange": "bytes 80-99/100", "ContentLength": 20}, (None, 100)),
        ({"ContentRange": "bytes 70-99/100", "ContentLength": 100}, (None, 100)),
        ({"ContentLength": 30}, (70, None)),
        ({"ContentLength": 100}, (0, None)),
        ({"ContentLength": 50}, (None, None)),
    ],
)
def test_where_an_answer_starts(
    answer: dict[str, Any], place: tuple[int | None, int | None]
) -> None:
    assert s3_stream._place(answer, 70, 100) == place
