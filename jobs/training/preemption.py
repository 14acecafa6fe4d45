"""Notices that a machine will be taken away; the ranks agree on them after every step.

A notice is a SIGTERM to a worker, or that Ray drains the node of one: ``ray start`` does so when
it gets a SIGTERM, as on Kubernetes, and so does ``ray drain-node``.
"""

import signal
import threading
import time

import ray.train
import torch
import torch.distributed as dist

_RAY_INTERVAL_S = 5.0  # Ray's own watch looks as often

_terminated = threading.Event()


def take_sigterm_as_notice() -> None:
    """Remember a SIGTERM instead of ending; call it on the main thread of a worker."""
    signal.signal(signal.SIGTERM, lambda *_: _terminated.set())


class PreemptionWatch:
    """What the ranks know together; all ranks make one and ask it equally often."""

    def __init__(self) -> None:
        # The flags are on the CPU, so that asking does not wait for a GPU.
        self._group = None if dist.get_backend() == "gloo" else dist.new_group(backend="gloo")
        self._asked_ray_at = time.monotonic()
        self._draining: set[str] = set()

    def notice(self) -> str | None:
        """What any rank has learnt since the last call, for people; None if nothing."""
        terminated = _terminated.is_set()
        is_due = time.monotonic() - self._asked_ray_at >= _RAY_INTERVAL_S
        flags = torch.tensor([terminated, is_due], dtype=torch.int32)
        dist.all_reduce(flags, dist.ReduceOp.MAX, group=self._group)
        any_terminated, any_is_due = flags.tolist()
        if terminated:
            _terminated.clear()
        if any_is_due and self._new_draining():
            return "a node will be taken away"
        return "a worker was asked to end" if any_terminated else None

    def _new_draining(self) -> bool:
        """Ask Ray, which gives all ranks the same answer, whether it drains more nodes."""
        self._asked_ray_at = time.monotonic()
        info = ray.train.get_preemption_info()
        draining = set() if info is None else set(info.preempted_node_ids)
        is_new = bool(draining - self._draining)
        self._draining |= draining
        return is_new
