"""Servers that a test takes away and brings back at the same address: rclone's S3 and MLflow."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import psutil

from tests.s3_servers import ACCESS_KEY, SECRET_KEY, S3Server

_START_TIMEOUT_S = 120
_PROGRAMS = f"{Path(sys.executable).parent}:{os.environ['PATH']}"


class Server:
    """A server process on a fixed port of the loopback device, whose data outlive it.

    Args:
        command: Program and arguments; ``{port}`` stands for the port.
        log: File for what it writes.
    """

    def __init__(self, command: list[str], log: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.endpoint = f"http://127.0.0.1:{port}"
        program = shutil.which(command[0], path=_PROGRAMS)
        assert program is not None, f"no {command[0]}"
        self._command = [program, *(part.format(port=port) for part in command[1:])]
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Server":
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.kill()

    def start(self) -> None:
        """Start it and wait until it answers."""
        with self._log.open("a") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not self._answers():
            assert self._process.poll() is None, self._log.read_text()
            assert time.monotonic() < deadline, self._log.read_text()
            time.sleep(0.1)

    def kill(self) -> None:
        """SIGKILL it and the processes it started."""
        if self._process is None:
            return
        if self._process.poll() is None:
            for child in psutil.Process(self._process.pid).children(recursive=True):
                child.kill()
        self._process.kill()
        self._process.wait()
        self._process = None

    def _answers(self) -> bool:
        try:
            urllib.request.urlopen(self.endpoint, timeout=5).close()
        except urllib.error.HTTPError:
            return True  # it refuses what has no signature
        except OSError:
            return False
        return True


def s3_over(folder: Path) -> Server:
    """``rclone serve s3`` over a folder, whose folders are the buckets."""
    options = ["--auth-key", f"{ACCESS_KEY},{SECRET_KEY}", "--addr", "127.0.0.1:{port}"]
    command = ["rclone", "serve", "s3", *options, "--config", "", str(folder)]
    return Server(command, folder.with_suffix(".log"))


def s3_environment(endpoint: str) -> dict[str, str]:
    """The variables under which a process uses the server."""
    return S3Server("rclone", endpoint).environment


def mlflow_over(folder: Path) -> Server:
    """An MLflow server on SQLite that keeps the runs' files itself."""
    store = f"sqlite:///{folder}/mlflow.db"
    files = ["--artifacts-destination", str(folder / "files")]
    options = ["--host", "127.0.0.1", "--port", "{port}", "--workers", "1"]
    command = ["mlflow", "server", "--backend-store-uri", store, *files, *options]
    return Server(command, folder / "server.log")
