"""Paths of the files shipped with the package."""

from pathlib import Path

from i2l_model.errors import InputError

_ASSETS = Path(__file__).parent / "assets"


def asset_path(name: str) -> Path:
    """Return the path of a shipped model folder.

    Args:
        name: Folder name, e.g. "tiny-zimage" or "tiny-predictor".

    Raises:
        InputError: If no asset has that name.
    """
    available = available_assets()
    if name not in available:
        known = ", ".join(available) if available else "none"
        raise InputError("asset", name, "is not shipped with i2l", f"use one of: {known}")
    return _ASSETS / name


def available_assets() -> tuple[str, ...]:
    """Return the sorted names of the shipped model folders."""
    if not _ASSETS.is_dir():
        return ()
    return tuple(sorted(entry.name for entry in _ASSETS.iterdir() if entry.is_dir()))
