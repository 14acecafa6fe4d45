"""Network namespaces as nodes: each has an address of its own on a common bridge.

They need root and ``ip`` of iproute2.
"""

import os
import shutil
import signal
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

_SUBNET = "10.213.77"


@dataclass(frozen=True)
class Node:
    """One namespace.

    Attributes:
        name: Of the namespace.
        address: IPv4 address that the other nodes reach it by.
    """

    name: str
    address: str

    def command(self, *arguments: str) -> list[str]:
        """The command line that runs a program in this node."""
        return ["ip", "netns", "exec", self.name, *arguments]

    def cut_off(self) -> None:
        """Take its network link down; connections hang, and nothing is told to the other side."""
        _ip("-n", self.name, "link", "set", "eth0", "down")

    def kill(self) -> None:
        """SIGKILL all processes of this node."""
        pids = subprocess.run(
            ["ip", "netns", "pids", self.name], capture_output=True, text=True, check=True
        ).stdout
        for pid in map(int, pids.split()):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue


def why_not() -> str | None:
    """Why there can be no namespaces here; None if there can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "network namespaces need ip of iproute2"
    name = f"i2l-{uuid.uuid4().hex[:6]}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    if made.returncode:
        return f"network namespaces are not allowed here: {made.stderr.strip()}"
    _ip("netns", "delete", name)
    return None


@contextmanager
def nodes(num: int) -> Iterator[list[Node]]:
    """Nodes on a bridge of their own; their processes are killed at the end."""
    key = uuid.uuid4().hex[:6]
    bridge = f"br-{key}"
    made: list[Node] = []
    _ip("link", "add", bridge, "type", "bridge")
    try:
        _ip("link", "set", bridge, "up")
        for i in range(num):
            node = Node(f"i2l-{key}-{i}", f"{_SUBNET}.{i + 1}")
            _ip("netns", "add", node.name)
            made.append(node)
            _connect(node, bridge, f"ve{i}-{key}")
        yield made
    finally:
        for node in made:
            node.kill()
            _ip("netns", "delete", node.name)
        _ip("link", "delete", bridge)


def _connect(node: Node, bridge: str, outer: str) -> None:
    peer = ("peer", "name", "eth0", "netns", node.name)
    _ip("link", "add", outer, "type", "veth", *peer)
    _ip("link", "set", outer, "master", bridge)
    _ip("link", "set", outer, "up")
    _ip("-n", node.name, "address", "add", f"{node.address}/24", "dev", "eth0")
    for device in ("lo", "eth0"):
        _ip("-n", node.name, "link", "set", device, "up")


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)
