"""How far reading and embedding are: shards done, images a second, kept and dropped so far."""

import time
from dataclasses import dataclass

from jobs.progress import Progress

STAGE = "embed"


@dataclass(slots=True)
class EmbedProgress:
    """Counts what the workers deliver and reports it.

    Args:
        progress: Told at the start and after each block.
        num_shards: Shards that have to be computed.
    """

    progress: Progress
    num_shards: int
    num_kept: int = 0
    num_dropped: int = 0
    _first: tuple[float, int] | None = None  # seconds and images of the first block

    def __post_init__(self) -> None:
        """Say that the workers start, which takes a while."""
        self.progress.update(STAGE, 0, self.num_shards, "starting workers")

    def add(self, num_kept: int, num_dropped: int, num_shards_done: int) -> None:
        """Report a block of images, and how many shards are complete by now."""
        self.num_kept += num_kept
        self.num_dropped += num_dropped
        images = self.num_kept + self.num_dropped
        counts = [f"{images:,} images", f"{self.num_kept:,} kept", f"{self.num_dropped:,} dropped"]
        now = time.monotonic()
        if self._first is None:
            self._first = now, images
        elif now > self._first[0]:
            counts.insert(1, f"{(images - self._first[1]) / (now - self._first[0]):,.0f}/s")
        self.progress.update(STAGE, num_shards_done, self.num_shards, ", ".join(counts))
