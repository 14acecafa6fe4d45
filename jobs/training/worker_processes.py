"""The processes of the workers: prepared before they form a process group."""

import fcntl
import os
import socket
import struct
from datetime import timedelta
from typing import Any

import ray.util
from ray.train.torch import TorchConfig
from ray.train.torch.config import _TorchBackend
from torch.distributed import distributed_c10d

from jobs.training.preemption import take_sigterm_as_notice

_SIOCGIFADDR = 0x8915  # asks Linux for the address of a network interface


class WorkerProcesses(TorchConfig):
    """Ray Train's setup of torch, after `prepare_process` on the main thread of every worker."""

    @property
    def backend_cls(self) -> type[_TorchBackend]:
        """What sets the processes up."""
        return _Backend


class _Backend(_TorchBackend):
    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        worker_group.execute(prepare_process)
        super().on_start(worker_group, backend_config)


def prepare_process() -> None:
    """Take SIGTERM as a notice, and let gloo use the network that Ray uses.

    By itself gloo takes the interface that the host's name stands for, which other nodes often
    cannot reach.
    """
    take_sigterm_as_notice()
    address: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
    interface = interface_of(address)
    if interface is not None:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)


def limit_collectives(timeout_s: float) -> None:
    """Let the collectives of all process groups that there are fail after some seconds.

    DeepSpeed makes groups of its own, which have torch's half an hour whatever the first one has.
    """
    for group in list(distributed_c10d._world.pg_map):
        distributed_c10d._set_pg_timeout(timedelta(seconds=timeout_s), group)


def interface_of(address: str) -> str | None:
    """Name of the network interface that has an IPv4 address; None if there is none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            request = struct.pack("256s", name.encode())
            try:
                answer = fcntl.ioctl(probe, _SIOCGIFADDR, request)
            except OSError:
                continue  # it has no IPv4 address
            if socket.inet_ntoa(answer[20:24]) == address:
                return name
    return None
