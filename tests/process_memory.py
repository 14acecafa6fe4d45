"""Memory of a process with all of its children, Ray's among them."""

import contextlib
import threading
from collections.abc import Iterator

import psutil


@contextlib.contextmanager
def peak_memory() -> Iterator[list[float]]:
    """The largest memory in bytes of this process and its descendants, shared pages once."""
    stop, peak = threading.Event(), [0.0]

    def sample() -> None:
        while not stop.wait(0.5):
            total = 0.0
            for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
                with contextlib.suppress(psutil.Error):
                    total += process.memory_full_info().pss
            peak[0] = max(peak[0], total)

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        stop.set()
        thread.join()
