"""Progress of embedding: shards as the measure, images a second beside it."""

import pytest

from jobs.mining import embed_progress
from jobs.mining.embed_progress import EmbedProgress


class Recorder:
    def __init__(self) -> None:
        self.updates: list[tuple[str, int, int | None, str]] = []

    def update(self, stage: str, done: int, total: int | None = None, note: str = "") -> None:
        self.updates.append((stage, done, total, note))


def test_blocks_add_up_and_the_start_of_the_workers_slows_no_rate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = iter([100.0, 104.0])
    monkeypatch.setattr(embed_progress.time, "monotonic", lambda: next(clock))
    recorder = Recorder()
    counts = EmbedProgress(recorder, 3)
    counts.add(900, 100, 0)
    counts.add(2000, 0, 2)
    assert recorder.updates == [
        ("embed", 0, 3, "starting workers"),
        ("embed", 0, 3, "1,000 images, 900 kept, 100 dropped"),
        ("embed", 2, 3, "3,000 images, 500/s, 2,900 kept, 100 dropped"),
    ]
