"""The WebDataset convention for names: which sample a member belongs to, and whether it is read."""

import functools

from i2l_model.images import IMAGE_EXTENSIONS

TEXT_EXTENSIONS = ("txt", "json", "caption")
MAX_NAME_CHARS = 4096
_MAX_SHOWN_SUFFIX = 12
IMAGE, TEXT = "image", "text"


def split_name(name: str) -> tuple[str, str]:
    """Key and extension: the extension begins at the first dot of the last path component."""
    folder, slash, base = name.removeprefix("./").rpartition("/")
    stem, _, extension = base.partition(".")
    return f"{folder}{slash}{stem}", extension.lower()


def is_sample_key(key: str) -> bool:
    """Whether a key names a file, as opposed to a folder or a hidden file such as ``._a.jpg``."""
    return key != "" and not key.endswith("/")


def is_unsafe(name: str) -> bool:
    r"""Whether a name is absolute, leaves its folder, or is no file name at all.

    Paths of other systems count too: ``..\x``, ``C:\x``.
    """
    if len(name) > MAX_NAME_CHARS or "\0" in name:
        return True
    parts = name.removeprefix("./").replace("\\", "/").split("/")
    return ".." in parts or (len(parts) > 1 and (parts[0] == "" or parts[0].endswith(":")))


@functools.lru_cache(maxsize=4096)
def kind_of(extension: str) -> str:
    """``IMAGE`` or ``TEXT`` by the last suffix, as in ``ref_0.jpg``; "" for what is never read."""
    suffix = extension.rpartition(".")[2]
    if suffix in IMAGE_EXTENSIONS:
        return IMAGE
    return TEXT if suffix in TEXT_EXTENSIONS else ""


def shown_suffix(extension: str) -> str:
    """The last suffix, for counting members that are not read; "other" for an odd one."""
    suffix = extension.rpartition(".")[2]
    plain = suffix.isascii() and suffix.isalnum() and len(suffix) <= _MAX_SHOWN_SUFFIX
    return suffix if plain else "other"
