import io
import logging

import pytest
from rich.console import Console

from jobs import progress as progress_module
from jobs.progress import LogProgress, RichProgress


def test_log_progress_writes_the_first_and_the_last_line_of_a_stage(
    caplog: pytest.LogCaptureFixture,
) -> None:
    progress = LogProgress(interval_s=3600)
    with caplog.at_level(logging.INFO):
        for done in range(1, 101):
            progress.update("train", done, 100, f"loss {done}")
    assert [record.message for record in caplog.records] == [
        "train 1/100, loss 1",
        "train 100/100, loss 100",
    ]


def test_log_progress_keeps_stages_apart(caplog: pytest.LogCaptureFixture) -> None:
    progress = LogProgress(interval_s=3600)
    with caplog.at_level(logging.INFO):
        progress.update("read", 1)
        progress.update("embed", 1)
        progress.update("read", 2)
    assert [record.message for record in caplog.records] == ["read 1", "embed 1"]


def test_log_progress_estimates_the_rest(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 20.0])
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: next(clock))
    progress = LogProgress(interval_s=1)
    with caplog.at_level(logging.INFO):
        progress.update("train", 0, 100)
        progress.update("train", 20, 100)
    assert caplog.records[-1].message == "train 20/100, 80 s left"


def test_rich_progress_shows_stage_count_and_note() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    with RichProgress(console) as progress:
        progress.update("train", 3, 10, "loss 0.142")
    output = console.file.getvalue()
    assert "train" in output
    assert "3/10" in output
    assert "loss 0.142" in output
