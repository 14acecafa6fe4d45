import logging
from pathlib import Path

import pytest

from jobs import storage
from jobs.training import progress_stream
from jobs.training.progress_stream import PROGRESS_FILE, ProgressFollower, ProgressWriter
from tests.s3_servers import S3Server


class Recording:
    def __init__(self) -> None:
        self.updates: list[tuple[str, int, int | None, str]] = []

    def update(self, stage: str, done: int, total: int | None = None, note: str = "") -> None:
        self.updates.append((stage, done, total, note))


def test_lines_arrive_once_and_in_order(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    recording = Recording()
    with caplog.at_level(logging.INFO), ProgressFollower(str(tmp_path), recording, 0.01):
        writer = ProgressWriter(str(tmp_path))
        writer.message("resumed at step 4")
        for step in range(5, 8):
            writer.update("train", step, 10, f"loss {step}")
    assert recording.updates == [("train", step, 10, f"loss {step}") for step in range(5, 8)]
    assert "resumed at step 4" in caplog.messages


def test_half_a_line_waits_for_its_end(tmp_path: Path) -> None:
    recording = Recording()
    follower = ProgressFollower(str(tmp_path), recording)
    path = tmp_path / PROGRESS_FILE
    line = '{"stage": "train", "done": 1, "total": 2, "note": ""}\n'
    path.write_text(line[:20])
    follower.poll()
    assert recording.updates == []
    path.write_text(line)
    follower.poll()
    follower.poll()
    assert recording.updates == [("train", 1, 2, "")]


def test_lines_of_an_earlier_run_are_dropped(tmp_path: Path) -> None:
    ProgressWriter(str(tmp_path)).update("train", 1, 2)
    recording = Recording()
    with ProgressFollower(str(tmp_path), recording, 0.01):
        pass
    assert recording.updates == []


def test_a_line_that_was_cut_off_costs_no_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recording = Recording()
    with caplog.at_level(logging.WARNING), ProgressFollower(str(tmp_path), recording, 0.01):
        (tmp_path / PROGRESS_FILE).write_text('{"stage": "train", "do')
        writer = ProgressWriter(str(tmp_path))
        for step in range(1, 4):
            writer.update("train", step, 3)
    assert [done for _, done, *_ in recording.updates] == [2, 3]
    assert caplog.text.count("cannot be read") == 1


@pytest.fixture
def bucket(s3_server: S3Server) -> str:
    return s3_server.new_bucket()


def test_a_worker_that_is_started_again_goes_on_in_s3(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress_stream, "LINES_A_PART", 3)
    output = storage.join_uri(bucket, "output")
    ProgressWriter(output).message("of an earlier run")
    recording = Recording()
    with ProgressFollower(output, recording, 0.01):
        for first, last in ((1, 3), (3, 9), (9, 11)):  # each from a worker of its own
            writer = ProgressWriter(output)
            for step in range(first, last):
                writer.update("train", step, 10, f"loss {step}")
    assert [done for _, done, *_ in recording.updates] == list(range(1, 11))
    sizes = [storage.file_size(uri) for uri in storage.list_files(output, ".jsonl")]
    assert len(sizes) == 4
    assert max(sizes) < 300


def test_what_is_read_in_s3_is_what_is_new(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    output = storage.join_uri(bucket, "output")
    follower, writer = ProgressFollower(output, Recording()), ProgressWriter(output)
    read: list[int] = []
    read_range = storage.read_range

    def counted(uri: str, offset: int, size: int) -> bytes:
        read.append(size)
        return read_range(uri, offset, size)

    monkeypatch.setattr(progress_stream.storage, "read_range", counted)
    for step in range(5):
        writer.update("train", step, 5)
        follower.poll()
        follower.poll()
    assert len(read) == 5
    assert sum(read) == storage.file_size(storage.join_uri(output, PROGRESS_FILE))
