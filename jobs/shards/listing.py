"""Which shards an input means: a folder, one tar, or a pattern."""

import re
from collections.abc import Container, Iterator
from fnmatch import fnmatchcase

from i2l_model.errors import InputError
from jobs import storage

_SPECIAL = re.compile(r"[*?\[{]")
_GLOB = re.compile(r"[*?\[]")
_SPAN = re.compile(r"(\d+)\.\.(\d+)")
_MAX_PATTERNS = 1_000_000


def list_shards(uri: str) -> list[str]:
    """Expand a folder, one tar or a pattern, local or in S3.

    Patterns hold braces as in a shell, nested ones too (``{train,val}-{000..127}.tar``), and
    ``*``, ``?``, ``[...]``, which stop at "/", or ``**``, which does not. A pattern may name
    folders: all shards below them are meant. What exists under the very name is no pattern.

    Returns:
        Absolute URIs in sorted order, each once, at least one.

    Raises:
        InputError: If the place does not exist or holds no tar, or a part of a pattern has no
            match.
    """
    special = _SPECIAL.search(uri)
    if special and (storage.is_s3(uri) or not storage.exists(uri)):
        return _matching_shards(uri, special.start())
    if uri.endswith(".tar"):
        if not storage.exists(uri):
            raise InputError("input", uri, "does not exist", "check the shard's URI")
        return [storage.absolute_uri(uri)]
    shards = storage.list_files(storage.absolute_uri(uri), ".tar")
    if not shards:
        fix = "give a folder of shards, or a pattern such as PREFIX*.tar"
        raise InputError("input", uri, "holds no .tar shards", fix)
    return shards


def input_root(uri: str) -> str:
    """The folder that shards of this input are named relative to.

    The folder itself, the folder of one tar, or of a pattern the folder before its first special
    character.
    """
    special = _SPECIAL.search(uri)
    if special and (storage.is_s3(uri) or not storage.exists(uri)):
        return storage.absolute_uri(uri[: uri.rfind("/", 0, special.start()) + 1] or ".")
    if uri.endswith(".tar"):
        return storage.absolute_uri(uri).rpartition("/")[0]
    return storage.absolute_uri(uri)


def has_shards(folder_uri: str) -> bool:
    """Whether the folder exists and holds a tar."""
    return storage.exists(folder_uri) and bool(storage.list_files(folder_uri, ".tar"))


def remove_shards(folder_uri: str, prefix: str, keep: Container[str] = ()) -> None:
    """Remove what a ``ShardWriter`` of this prefix left in the folder; all other files stay.

    Args:
        folder_uri: The folder.
        prefix: The writer's.
        keep: Names of shards that stay.
    """
    root = storage.absolute_uri(folder_uri)
    for uri in storage.list_files(root, ".tar") if storage.exists(root) else ():
        name = uri[len(root) :].lstrip("/")
        if re.fullmatch(rf"{re.escape(prefix)}-\d{{5,}}\.tar", name) and name not in keep:
            storage.delete(uri)


def _matching_shards(uri: str, first_special: int) -> list[str]:
    """All matches, found by one listing of the folder before the first special character."""
    cut = uri.rfind("/", 0, first_special) + 1
    folder, pattern = storage.absolute_uri(uri[:cut] or "."), uri[cut:]
    below = f"{folder.rstrip('/')}/"
    files = storage.list_files(folder, ".tar", name_prefix=uri[cut:first_special])
    names = {file.removeprefix(below) for file in files}
    found: set[str] = set()
    for number, part in enumerate(_expand_braces(pattern)):
        if number == _MAX_PATTERNS:
            raise InputError("input", uri, "expands to too many shards", "split the pattern")
        matches = _matches(part, names)
        if not matches:
            raise InputError("input", below + part, "does not exist", "check the shard's URI")
        found |= matches
    return sorted(below + name for name in found)


def _matches(pattern: str, names: set[str]) -> set[str]:
    """The names that one pattern without braces means."""
    if pattern in names:
        return {pattern}
    is_glob = _GLOB.search(pattern) is not None
    if pattern.endswith(".tar") and not is_glob:
        return set()
    below = f"{pattern.rstrip('/')}/"
    found = {name for name in names if name.startswith(below)}
    if found or not is_glob:
        return found
    parts = [part for part in pattern.split("/") if part]
    return {name for name in names if _fits(name.split("/"), parts)}


def _fits(names: list[str], patterns: list[str]) -> bool:
    """Whether a path, or a folder above it, fits the pattern; both are split at "/"."""
    if not patterns:
        return True
    if patterns[0] == "**":
        return any(_fits(names[start:], patterns[1:]) for start in range(len(names) + 1))
    return bool(names) and fnmatchcase(names[0], patterns[0]) and _fits(names[1:], patterns[1:])


def _expand_braces(pattern: str) -> Iterator[str]:
    """``a{0..2}b{x,y}`` → every combination; numbers keep the width of the first bound."""
    opening = pattern.find("{")
    closing = _closing_brace(pattern, opening)
    choices = _choices(pattern[opening + 1 : closing]) if closing else None
    if opening < 0:
        yield pattern
    elif choices is None:  # a brace that stands for itself
        for rest in _expand_braces(pattern[opening + 1 :]):
            yield pattern[: opening + 1] + rest
    else:
        for rest in _expand_braces(pattern[closing + 1 :]):
            for choice in choices:
                for middle in _expand_braces(choice):
                    yield pattern[:opening] + middle + rest


def _closing_brace(pattern: str, opening: int) -> int:
    """Index of the brace that closes the one at ``opening``; 0 if there is none."""
    depth = 0
    for place in range(max(opening, 0), len(pattern)):
        depth += {"{": 1, "}": -1}.get(pattern[place], 0)
        if depth == 0:
            return place if pattern[place] == "}" else 0
    return 0


def _choices(inside: str) -> list[str] | None:
    """What stands between braces: a span of numbers or parts between commas; None if neither."""
    span = _SPAN.fullmatch(inside)
    if not span:
        parts = _split_at_commas(inside)
        return parts if len(parts) > 1 else None
    first, last = int(span[1]), int(span[2])
    if abs(last - first) >= _MAX_PATTERNS:
        problem = "expands to too many shards"
        raise InputError("input", f"{{{inside}}}", problem, "split the pattern")
    step = 1 if first <= last else -1
    width = len(span[1])
    return [f"{number:0{width}d}" for number in range(first, last + step, step)]


def _split_at_commas(inside: str) -> list[str]:
    """Parts between the commas that stand in no inner braces."""
    parts, depth = [""], 0
    for letter in inside:
        depth += {"{": 1, "}": -1}.get(letter, 0)
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return parts
