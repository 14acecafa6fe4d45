"""Starts of a run, each with a folder of its own for its checkpoints.

When a driver is killed, Ray processes of its start may write and delete checkpoints for some more
seconds. Nothing they do reaches the folder of the next start.
"""

import logging
import re
import uuid
from collections.abc import Callable
from functools import partial

from i2l_model.errors import InputError
from jobs import storage
from jobs.away import ServerAway
from jobs.training.checkpoints import PREFIX, local_copy, whole_files

logger = logging.getLogger(__name__)

_ATTEMPT = re.compile(r"attempt-(\d+)(-\w+)?")
_RESUME = "resume"


def start_attempt(run_uri: str) -> str:
    """Open a new folder for a run, with a copy of the newest whole checkpoint of earlier starts.

    The copy is checked after it was made. Earlier folders are deleted once it is whole; where no
    checkpoint of theirs is, they stay.

    Returns:
        The folder, which only this start writes to.

    Raises:
        InputError, OSError: If a whole checkpoint cannot be copied; nothing is deleted then.
    """
    run_uri = storage.absolute_uri(run_uri)
    earlier = _attempts(run_uri)
    number = 1 + max(earlier.values(), default=0)
    # Of two drivers that start at once, both take this number.
    attempt_uri = storage.join_uri(run_uri, f"attempt-{number:04d}-{uuid.uuid4().hex[:8]}")
    found = list_checkpoints(run_uri)
    copied = _first(found, partial(_copied_whole, to=storage.join_uri(attempt_uri, _RESUME)))
    if copied is not None or not found:
        for name in earlier:
            _delete_quietly(storage.join_uri(run_uri, name))
    return attempt_uri


def newest_whole(run_uri: str) -> str | None:
    """Return the newest checkpoint below a folder that is whole, or None; say what is left out."""
    return _first(list_checkpoints(run_uri), lambda uri: whole_files(uri) is not None)


def list_checkpoints(run_uri: str) -> list[str]:
    """URIs of the checkpoints of all attempts of a run, newest step first, whole or not."""
    if not storage.exists(run_uri):
        return []
    root = storage.absolute_uri(run_uri)
    found = set()
    for uri in storage.list_files(root):
        parts = uri[len(root) :].lstrip("/").split("/")
        for depth, part in enumerate(parts[:-1]):
            if part.startswith(PREFIX):
                found.add((part, *parts[:depth]))
                break
    return [storage.join_uri(root, *above, name) for name, *above in sorted(found, reverse=True)]


def _first(checkpoints: list[str], is_whole: Callable[[str], bool]) -> str | None:
    for uri in checkpoints:
        if is_whole(uri):
            return uri
        logger.warning("checkpoint %s is not whole and is left out", uri)
    return None


def _attempts(run_uri: str) -> dict[str, int]:
    """Numbers of the attempts by the names of their folders."""
    if not storage.exists(run_uri):
        return {}
    first = {uri[len(run_uri) :].lstrip("/").split("/")[0] for uri in storage.list_files(run_uri)}
    return {name: int(match[1]) for name in first if (match := _ATTEMPT.fullmatch(name))}


def _copied_whole(uri: str, to: str) -> bool:
    """Copy a checkpoint into a folder; False, and no copy, unless every listed byte has arrived.

    Raises:
        InputError, OSError: If the copy fails, but the checkpoint is whole: a full disk, or storage
            that does not answer, says nothing about it.
    """
    copy = storage.join_uri(to, uri.rpartition("/")[2])
    try:
        with local_copy(uri) as folder:
            storage.upload_folder(folder, copy)
        whole = whole_files(copy) is not None
    except (ServerAway, storage.StorageError):
        raise
    except (InputError, OSError):
        _delete_quietly(copy)
        if whole_files(uri) is not None:
            raise
        return False
    if not whole:
        _delete_quietly(copy)
    return whole


def _delete_quietly(uri: str) -> None:
    """Delete a folder in which others may still create files; what stays goes at the next start."""
    try:
        storage.delete(uri)
    except (InputError, OSError) as error:
        logger.warning("%s could not be deleted: %s", uri, error)
