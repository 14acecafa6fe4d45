"""The pictures below a folder, in the order of their names; no file is opened here.

Names come from strangers: links are not followed, names that collide or that no shard can hold get
another key, and what is left out is reported with a reason.
"""

import errno
import hashlib
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from i2l_model.images import IMAGE_EXTENSIONS
from jobs.surrogates import replace_surrogates

SIDECAR_SUFFIXES = (".txt", ".json")
UNUSABLE = -1  # size of a sidecar that is there, but must not be read
_SUFFIXES = tuple(f".{extension}" for extension in IMAGE_EXTENSIONS)
_MAX_KEY_CHARS = 4000  # shard readers refuse names above 4096
# What a key's last part must not hold: dots begin the extension, the rest is trouble elsewhere.
_NOT_IN_KEY = re.compile(r"[.\s:\\\x00-\x1f\x7f]+")
_NOT_IN_FOLDER = re.compile(r"[%:\\\x00-\x1f\x7f\ud800-\udfff]")


class FileState(NamedTuple):
    """What tells whether a file changed."""

    size: int
    modified_ns: int


class PictureFile(NamedTuple):
    """A picture with its sidecars.

    Attributes:
        name: Path below the folder, as the file system has it.
        key: Key of its sample, unlike every other in the folder.
        state: Of the picture.
        sidecars: State of each of ``SIDECAR_SUFFIXES``; None where there is none.
    """

    name: str
    key: str
    state: FileState
    sidecars: tuple[FileState | None, ...]


class LeftOut(NamedTuple):
    """A picture, or a whole folder (with "/" at its end), that cannot be packed."""

    name: str
    reason: str


Item = PictureFile | LeftOut


def walk_pictures(root: str, *, follow_links: bool) -> Iterator[Item]:
    """All pictures below ``root``, sorted by name. Hidden files and folders do not count.

    Reasons for leaving out: "link", "unreadable", "not_a_file" (a pipe or a device),
    "name_too_long". Links to folders are never followed; with ``follow_links``, those to files.
    Memory holds the names of one folder and of those above it.
    """
    open_folders = [_items(root, "", follow_links)]
    while open_folders:
        item = next(open_folders[-1], None)
        if item is None:
            open_folders.pop()
        elif isinstance(item, str):
            open_folders.append(_items(root, item, follow_links))
        else:
            yield item


def state_digest(items: Iterator[Item] | list[Item]) -> str:
    """Hash that changes when names, sizes or times of modification do."""
    digest = hashlib.sha256()
    for item in items:
        digest.update(repr(tuple(item)).encode("utf-8", "backslashreplace") + b"\n")
    return digest.hexdigest()


def _items(root: str, folder: str, follow_links: bool) -> Iterator[Item | str]:
    """What lies in one folder ("" or with "/" at its end); folders in it as their path."""
    keys = _FolderKeys(_folder_key(folder))
    try:
        names = sorted(_names(os.path.join(root, folder)))
    except OSError:
        yield LeftOut(folder, "unreadable")
        return
    for name in names:
        path = folder + name
        if name.endswith("//"):
            yield LeftOut(path[:-1], "link")
        elif name.endswith("/"):
            yield path
        else:
            yield _picture(root, path, keys, follow_links)


def _names(path: str) -> Iterator[str]:
    """Names of the pictures in a folder, and of the folders, with "/"; linked ones with "//"."""
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                yield f"{entry.name}/"
            elif entry.is_symlink() and os.path.isdir(entry.path):
                yield f"{entry.name}//"
            elif entry.name.lower().endswith(_SUFFIXES):
                yield entry.name


def _picture(root: str, name: str, keys: "_FolderKeys", follow_links: bool) -> Item:
    path = os.path.join(root, name)
    try:
        found = os.stat(path, follow_symlinks=follow_links)
    except OSError:
        return LeftOut(name, "unreadable")
    if stat.S_ISLNK(found.st_mode):
        return LeftOut(name, "link")
    if not stat.S_ISREG(found.st_mode):
        return LeftOut(name, "not_a_file")
    key = keys.take(os.path.splitext(os.path.basename(name))[0])
    if len(key) > _MAX_KEY_CHARS:
        return LeftOut(name, "name_too_long")
    stem = os.path.splitext(path)[0]
    sidecars = tuple(_sidecar(stem + suffix, follow_links) for suffix in SIDECAR_SUFFIXES)
    return PictureFile(name, key, file_state(found), sidecars)


def _sidecar(path: str, follow_links: bool) -> FileState | None:
    try:
        found = os.stat(path, follow_symlinks=follow_links)
    except OSError as error:
        absent = error.errno in (errno.ENOENT, errno.ENAMETOOLONG)
        return None if absent else FileState(UNUSABLE, 0)
    if stat.S_ISDIR(found.st_mode):
        return None
    return file_state(found) if stat.S_ISREG(found.st_mode) else FileState(UNUSABLE, 0)


def file_state(found: os.stat_result) -> FileState:
    """Size and time of modification."""
    return FileState(found.st_size, found.st_mtime_ns)


def _folder_key(folder: str) -> str:
    """The folder's path as the beginning of keys; unlike paths stay unlike."""
    return _NOT_IN_FOLDER.sub(lambda match: f"%{ord(match.group()):02X}", folder)


@dataclass(slots=True)
class _FolderKeys:
    """Keys of the pictures in one folder: the name without suffix; equal ones get a number."""

    folder: str
    next_number: dict[str, int] = field(default_factory=dict)

    def take(self, stem: str) -> str:
        base = _NOT_IN_KEY.sub("_", replace_surrogates(stem)).strip("_") or "image"
        key = base
        if base in self.next_number:
            number = self.next_number[base]
            while (key := f"{base}_{number}") in self.next_number:
                number += 1
            self.next_number[base] = number + 1
        self.next_number[key] = 2
        return self.folder + key
