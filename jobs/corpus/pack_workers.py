"""Processes that pack. The folder is on this machine, so they are its own and not a cluster's."""

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from concurrent.futures import ProcessPoolExecutor

from jobs.corpus.pack_part import PackedPart, PackTask, pack_part

_busy = threading.Lock()


def worker_pool(num_workers: int) -> ProcessPoolExecutor:
    """Processes that finish the shard under way when the job is interrupted or killed."""
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(num_workers, context, initializer=_start)


def pack_part_in_worker(task: PackTask) -> PackedPart:
    """``pack_part``, in a process that must not end meanwhile."""
    with _busy:
        return pack_part(task)


def _start() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides on Ctrl-C
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End the process when its parent was killed, which would leave it waiting for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    multiprocessing.connection.wait([parent.sentinel])
    with _busy:
        os._exit(1)
