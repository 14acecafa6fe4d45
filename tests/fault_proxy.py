"""A TCP proxy in front of a real S3 server that breaks what passes through it, as told.

::

    with FaultProxy(server.endpoint) as proxy:
        proxy.faults = [Fault("status", times=2), Fault("reset", after_bytes=100_000)]

Every connection carries one request. The first fault that fits a request is applied to it.
"""

import contextlib
import re
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

_CHUNK_BYTES = 1 << 14
_END_OF_HEAD = b"\r\n\r\n"
_STALL_S = 60.0
_SLOW_DOWN = (
    b"<?xml version='1.0' encoding='UTF-8'?><Error><Code>%s</Code>"
    b"<Message>Please reduce your request rate.</Message></Error>"
)


@dataclass
class Fault:
    """What happens to some requests.

    Attributes:
        kind: "status" answers with an error instead of asking the server; "reset" breaks the
            connection within the answer's body, "truncate" ends it there as if it were complete,
            "stall" sends nothing more; "reset_upload" breaks it within the request's body.
        method: Which requests.
        path: Regular expression that the path with its query has to match somewhere.
        times: How many requests; the fault is spent then.
        after_bytes: How much of the body passes before.
        status: HTTP status for "status".
        code: S3's error code for "status".
    """

    kind: Literal["status", "reset", "truncate", "stall", "reset_upload"]
    method: str = "GET"
    path: str = ""
    times: int = 1
    after_bytes: int = 0
    status: int = 503
    code: str = "SlowDown"


@dataclass
class FaultProxy:
    """The proxy; a context manager.

    Attributes:
        upstream: Address of the server.
        faults: What to break; may be changed at any time.
        ignore_range: Send whole objects where a part is asked for, as some servers do.
        hidden_headers: Answers lose these headers; lower case.
        requests: What was asked for: method, path and range.
        before_request: Called with method and path before a request is passed on.
    """

    upstream: str
    faults: list[Fault] = field(default_factory=list)
    ignore_range: bool = False
    hidden_headers: tuple[str, ...] = ()
    requests: list[tuple[str, str, str]] = field(default_factory=list)
    before_request: Callable[[str, str], None] | None = None

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)

    @property
    def endpoint(self) -> str:
        """The address to use instead of the server's."""
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> "FaultProxy":
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stopped.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while not self._stopped.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            head, body = _read_head(client)
            if not head:
                return
            method, path, _ = head.split(b"\r\n", 1)[0].decode().split(" ", 2)
            wanted = re.search(rb"\r\nrange: *([^\r]+)", head, re.I)
            self.requests.append((method, path, wanted[1].decode() if wanted else ""))
            if self.before_request is not None:
                self.before_request(method, path)
            fault = self._fault_for(method, path)
            if fault is not None and fault.kind == "status":
                _answer(client, fault)
            else:
                self._forward(client, head, body, fault)

    def _fault_for(self, method: str, path: str) -> Fault | None:
        with self._lock:
            for fault in self.faults:
                if fault.times > 0 and fault.method == method and re.search(fault.path, path):
                    fault.times -= 1
                    return fault
        return None

    def _forward(
        self, client: socket.socket, head: bytes, body: bytes, fault: Fault | None
    ) -> None:
        address = urlsplit(self.upstream)
        assert address.hostname is not None
        assert address.port is not None
        with socket.create_connection((address.hostname, address.port)) as server:
            dropped = ("connection", "range") if self.ignore_range else ("connection",)
            server.sendall(_without(head, dropped, b"Connection: close"))
            upload_limit = (
                fault.after_bytes if fault is not None and fault.kind == "reset_upload" else None
            )
            upload = threading.Thread(
                target=_send_body, args=(client, server, body, upload_limit), daemon=True
            )
            upload.start()
            self._return(client, server, fault)

    def _return(self, client: socket.socket, server: socket.socket, fault: Fault | None) -> None:
        """Pass the answer on, as far as the fault lets it."""
        head, body = _read_head(server)
        while head.startswith(b"HTTP/1.1 100"):
            client.sendall(head)
            head, body = _read_head(server, body)
        client.sendall(_without(head, (*self.hidden_headers, "connection"), b"Connection: close"))
        breaks = fault is not None and fault.kind in ("reset", "truncate", "stall")
        left = fault.after_bytes if fault is not None and breaks else None
        while True:
            part = body if left is None else body[:left]
            client.sendall(part)
            if left is not None:
                left -= len(part)
            if left == 0 or not (body := server.recv(_CHUNK_BYTES)):
                break
        if fault is not None and breaks:
            if fault.kind == "stall":
                self._stopped.wait(_STALL_S)
            if fault.kind == "reset":
                _reset(client)


def _read_head(source: socket.socket, data: bytes = b"") -> tuple[bytes, bytes]:
    """The head with its empty line, and what came of the body."""
    while _END_OF_HEAD not in data:
        part = source.recv(_CHUNK_BYTES)
        if not part:
            return b"", b""
        data += part
    head, _, body = data.partition(_END_OF_HEAD)
    return head + _END_OF_HEAD, body or b""


def _without(head: bytes, names: tuple[str, ...], added: bytes) -> bytes:
    first, *lines = head.removesuffix(_END_OF_HEAD).split(b"\r\n")
    kept = [line for line in lines if line.split(b":")[0].decode().lower() not in names]
    return b"\r\n".join([first, *kept, added]) + _END_OF_HEAD


def _send_body(
    client: socket.socket, server: socket.socket, body: bytes, limit: int | None
) -> None:
    """Pass the request's body on; at the limit, break both connections."""
    with contextlib.suppress(OSError):
        while True:
            server.sendall(body)
            if limit is not None:
                limit -= len(body)
                if limit <= 0:
                    _reset(client)
                    _reset(server)
                    return
            body = client.recv(_CHUNK_BYTES)
            if not body:
                return


def _answer(client: socket.socket, fault: Fault) -> None:
    text = _SLOW_DOWN % fault.code.encode()
    head = f"HTTP/1.1 {fault.status} Fault\r\nContent-Length: {len(text)}\r\nConnection: close"
    client.sendall(head.encode() + _END_OF_HEAD + text)
    client.shutdown(socket.SHUT_WR)
    client.settimeout(1)
    while client.recv(_CHUNK_BYTES):
        pass


def _reset(connection: socket.socket) -> None:
    """Close with a reset instead of an orderly end."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.shutdown(socket.SHUT_RD)
    connection.close()
