"""Mutual exclusion of promotions: registry aliases have no compare-and-set."""

import fcntl
import json
import logging
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from i2l_model.errors import InputError
from jobs.registry.tracking import TrackingConfig

logger = logging.getLogger(__name__)

LOCK_TAG = "promotion-lock"
_HOLD_S = 120.0  # a lock of a process that died is taken over after this long
_SETTLE_S = 0.5
_POLL_S = 0.2


@contextmanager
def promotion_lock(
    client: Any, config: TrackingConfig, name: str, timeout_s: float = 30.0
) -> Iterator[None]:
    """Hold the right to move the aliases of the registered model ``name``.

    Beside an SQLite database this is a file lock, exact, and freed when the process dies. With a
    server it is a tag with an expiry: writers that start within the same half second see each
    other, later ones see the tag. Callers also read the alias back after setting it.

    Raises:
        InputError: If another process holds the lock for longer than ``timeout_s``.
    """
    if config.database is not None:
        path = config.database.with_name(f".{config.database.name}.{name}.lock")
        with _file_lock(path, name, timeout_s):
            yield
    else:
        with _tag_lock(client, name, timeout_s):
            yield


def _held(name: str) -> InputError:
    return InputError("model", name, "is being promoted by another process", "try again later")


@contextmanager
def _file_lock(path: Path, name: str, timeout_s: float) -> Iterator[None]:
    deadline = time.monotonic() + timeout_s
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as stream:
        while True:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    raise _held(name) from error
                time.sleep(_POLL_S)
        yield


@contextmanager
def _tag_lock(client: Any, name: str, timeout_s: float) -> Iterator[None]:
    token = uuid.uuid4().hex
    deadline = time.monotonic() + timeout_s
    while not _take_tag(client, name, token):
        if time.monotonic() > deadline:
            raise _held(name)
        time.sleep(_POLL_S)
    try:
        yield
    finally:
        if _holder(client, name)[0] == token:
            client.delete_registered_model_tag(name, LOCK_TAG)
        else:
            logger.warning("the promotion lock of %s was taken over meanwhile", name)


def _holder(client: Any, name: str) -> tuple[str, float]:
    """Token and expiry (seconds since the epoch) of the tag; empty and 0 where there is none."""
    tag = client.get_registered_model(name).tags.get(LOCK_TAG)
    if not tag:
        return "", 0.0
    held = json.loads(tag)
    return str(held["token"]), float(held["expires"])


def _take_tag(client: Any, name: str, token: str) -> bool:
    holder, expires = _holder(client, name)
    if holder and expires > time.time():
        return False
    value = json.dumps({"token": token, "expires": time.time() + _HOLD_S})
    client.set_registered_model_tag(name, LOCK_TAG, value)
    time.sleep(_SETTLE_S)
    return _holder(client, name)[0] == token
