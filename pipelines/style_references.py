"""Reference images from the command line: files, or a folder of them for each style."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from i2l_model.errors import InputError
from i2l_model.images import IMAGE_EXTENSIONS, load_image
from i2l_model.lora.files import LoraFormat


@dataclass(frozen=True)
class References:
    """Images of one style.

    Attributes:
        paths: Where they came from.
        images: The decoded images.
        weights: How much each counts; None weighs them equally.
    """

    paths: tuple[str, ...]
    images: tuple[Image.Image, ...]
    weights: tuple[float, ...] | None = None


def read_references(paths: Sequence[str], weights: Sequence[float] | None = None) -> References:
    """Read all references of a style; one that is no image fails all.

    Args:
        paths: Image files, or one folder of them.
        weights: One for each reference, or None.

    Raises:
        InputError: If a file is missing or no usable image, or the weights do not fit.
    """
    if len(paths) == 1 and Path(paths[0]).is_dir():
        paths = images_in(Path(paths[0]))
    for path in paths:
        if Path(path).is_dir():
            fix = "give image files, or one folder with nothing but images"
            raise InputError("references", path, "is a folder, not an image", fix)
    images = tuple(load_image(path) for path in paths)
    if not weights:
        return References(tuple(paths), images)
    if len(weights) != len(paths):
        problem = f"must be {len(paths)} numbers"
        raise InputError("--weights", list(weights), problem, "give one for each reference")
    if not all(math.isfinite(weight) and weight >= 0 for weight in weights) or not sum(weights):
        raise InputError(
            "--weights", list(weights), "must be at least 0, one of them above", "change them"
        )
    return References(tuple(paths), images, tuple(weights))


def images_in(folder: Path) -> list[str]:
    """Return the image files of a folder by name, hidden ones left out.

    Raises:
        InputError: If there are none.
    """
    files = sorted(
        str(file)
        for file in folder.iterdir()
        if file.suffix.lower().lstrip(".") in IMAGE_EXTENSIONS and not file.name.startswith(".")
    )
    if not files:
        known = ", ".join(IMAGE_EXTENSIONS)
        raise InputError("references", folder, "holds no images", f"put {known} files into it")
    return files


def styles_of(
    paths: Sequence[str],
    output: Path,
    weights: Sequence[float] | None = None,
    file_format: LoraFormat = "diffusers",
) -> dict[Path, References]:
    """Return the references of each style by what is to be written: a LoRA file or PEFT folder.

    Args:
        paths: Image files of one style, or folders, each of a style.
        output: A .safetensors file for one style; else a folder, which takes a file or PEFT folder
            of each style, or with format "peft" and image files is the PEFT folder.
        weights: One for each reference of a single style, or None.
        file_format: What will be written.

    Raises:
        InputError: If files and folders are mixed, a file cannot be read, two folders have one
            name, or output and number of styles do not go together.
    """
    folders = _folders(paths)
    single = output.suffix == ".safetensors"
    if output.suffix and not single:
        fix = "end its name in .safetensors, or without a dot for a folder"
        raise InputError("--output", output, "is no .safetensors file", fix)
    if not folders or (single and len(folders) == 1):
        if not single and file_format != "peft":
            raise InputError("--output", output, "is no .safetensors file", "end its name so")
        return {output: read_references(paths, weights)}
    if single:
        problem = f"is one file for {len(folders)} styles"
        raise InputError("--output", output, problem, "name a folder")
    if weights:
        problem = "are for the references of one style"
        raise InputError("--weights", list(weights), problem, "leave them out")
    styles: dict[Path, References] = {}
    for folder in folders:
        target = output / _target_name(folder, file_format)
        if target in styles:
            raise InputError("references", folder, "has the name of another folder", "rename it")
        styles[target] = read_references([str(folder)])
    return styles


def _folders(paths: Sequence[str]) -> list[Path]:
    """All paths as folders, or none where all are files."""
    folders = [Path(path) for path in paths if Path(path).is_dir()]
    for path in paths:
        if not Path(path).exists():
            raise InputError("references", path, "does not exist", "give an image or a folder")
        if folders and not Path(path).is_dir():
            fix = "give the images of one style, or folders alone"
            raise InputError("references", path, "is a file among folders", fix)
    return folders


def _target_name(folder: Path, file_format: LoraFormat) -> str:
    name = folder.resolve().name
    if file_format != "peft":
        return f"{name}.safetensors"
    if "." in name:
        raise InputError("references", folder, "has a dot, no name of a PEFT folder", "rename it")
    return name
