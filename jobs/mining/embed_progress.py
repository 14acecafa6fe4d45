"""How far reading and embedding are: shards done, images a second, kept and dropped so far."""

import time
from dataclasses import dataclass, field

from jobs.progress import Progress

STAGE = "embed"


@dataclass(slots=True)
class EmbedProgress:
    """Counts what the workers deliver and reports it.

    Args:
        progress: Told after each block.
        num_shards: Shards that have to be computed.
    """

    progress: Progress
    num_shards: int
    num_kept: int = 0
    num_dropped: int = 0
    _started_s: float = field(default_factory=time.monotonic)

    def add(self, num_kept: int, num_dropped: int, num_shards_done: int) -> None:
        """Report a block of images, and how many shards are complete by now."""
        self.num_kept += num_kept
        self.num_dropped += num_dropped
        images = self.num_kept + self.num_dropped
        rate = images / max(time.monotonic() - self._started_s, 1e-3)
        note = (
            f"{images:,} images, {rate:,.0f}/s, "
            f"{self.num_kept:,} kept, {self.num_dropped:,} dropped"
        )
        self.progress.update(STAGE, num_shards_done, self.num_shards, note)
