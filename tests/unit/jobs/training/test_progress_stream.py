import logging
from pathlib import Path

import pytest

from jobs.training.progress_stream import PROGRESS_FILE, ProgressFollower, ProgressWriter


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
