"""The boto3 client, set by the usual AWS variables and the profile.

- ``AWS_ENDPOINT_URL`` or ``AWS_ENDPOINT_URL_S3``: a server other than AWS, addressed by path
- ``AWS_REGION`` or ``AWS_DEFAULT_REGION``; credentials as for every AWS tool
- ``AWS_MAX_ATTEMPTS`` (default 5) and ``AWS_RETRY_MODE``: retries of a request, with growing and
  random pauses, on 5xx, throttling, timeouts and broken connections
- ``AWS_REQUEST_CHECKSUM_CALCULATION`` and ``AWS_RESPONSE_CHECKSUM_VALIDATION``: ``when_required``
  for servers that refuse checksum trailers
"""

import functools
import os
from typing import Any

import boto3
import botocore.client
import botocore.config
import botocore.exceptions
import botocore.session

from i2l_model.errors import InputError

CONNECT_TIMEOUT_S = 10
READ_TIMEOUT_S = 60
_DEFAULT_ATTEMPTS = 5
_MAX_CONNECTIONS = 32  # of one process


def client(*, ranged: bool = False) -> Any:
    """The client of this process and of the variables as they are now; safe among threads.

    Args:
        ranged: For reads of a part of an object. Some servers send the whole object's checksum
            with a part, which must not be compared.

    Raises:
        InputError: If a variable or the profile cannot be used.
    """
    names = (n for n in sorted(os.environ) if n.startswith("AWS_"))
    variables = tuple((name, os.environ[name]) for name in names)
    return _client(os.getpid(), variables, ranged)  # connections do not survive a fork


def max_attempts() -> int:
    """How often a request, or a stalled stream, is tried before it is given up."""
    return int(client().meta.config.retries["total_max_attempts"])


def forget_clients() -> None:
    """Make the next call build its client anew."""
    _client.cache_clear()


@functools.lru_cache(maxsize=8)
def _client(process: int, variables: tuple[tuple[str, str], ...], ranged: bool) -> Any:
    try:
        core = botocore.session.Session()
        config = _config(core, dict(variables), ranged)
        region = os.environ.get("AWS_REGION") or core.get_config_variable("region") or "us-east-1"
        return boto3.session.Session(botocore_session=core).client(
            "s3", config=config, region_name=region
        )
    except (ValueError, botocore.exceptions.BotoCoreError) as error:
        problem = f"cannot be used ({error})"
        raise InputError("AWS settings", "environment", problem, "correct the variable") from error


def _config(
    core: botocore.session.Session, variables: dict[str, str], ranged: bool
) -> botocore.config.Config:
    own_endpoint = "AWS_ENDPOINT_URL_S3" in variables or "AWS_ENDPOINT_URL" in variables
    adaptive = core.get_config_variable("retry_mode") == "adaptive"
    attempts = core.get_config_variable("max_attempts") or _DEFAULT_ATTEMPTS
    options: dict[str, Any] = {"response_checksum_validation": "when_required"} if ranged else {}
    return botocore.config.Config(
        # Every server has path addresses; AWS itself prefers those by host.
        s3={"addressing_style": "path" if own_endpoint else "auto"},
        retries={"mode": "adaptive" if adaptive else "standard", "total_max_attempts": attempts},
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=READ_TIMEOUT_S,
        max_pool_connections=_MAX_CONNECTIONS,
        tcp_keepalive=True,
        **options,
    )
