"""From a picture to a model's input, as the model's own image processor does it, with Pillow.

The two halves run in different places. Resizing and cropping need the whole picture and happen
where it is decoded; what travels is a small uint8 square. Scaling and normalising to floats
happen beside the model.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from i2l_model.errors import InputError

if TYPE_CHECKING:
    import torch

# N images, H W pixels

Pixels = NDArray[np.uint8]
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True, slots=True)
class Crop:
    """How a picture becomes pixels of a fixed size.

    Attributes:
        height: Of the result.
        width: Of the result.
        shortest_edge: The picture is scaled so that its short side has this length, then its
            centre is cut out; None scales it to the result's size without regard to aspect.
        resample: Pillow's number of the filter.
    """

    height: int
    width: int
    shortest_edge: int | None
    resample: int = int(Image.Resampling.BICUBIC)

    def __call__(self, image: Image.Image) -> Pixels:
        """An image of mode "RGB" → (H, W, 3) uint8."""
        filter_ = Image.Resampling(self.resample)
        if self.shortest_edge is None:
            return np.asarray(image.resize((self.width, self.height), filter_))
        short = min(image.size)
        width, height = (int(self.shortest_edge * side / short) for side in image.size)
        left, top = (width - self.width) // 2, (height - self.height) // 2
        resized = image.resize((width, height), filter_)
        return np.asarray(resized.crop((left, top, left + self.width, top + self.height)))


@dataclass(frozen=True, slots=True)
class Preprocess:
    """A crop, and the scaling of its pixels: ``(pixels * factor - mean) / std``."""

    crop: Crop
    factor: float
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def clip(cls, side: int) -> Self:
        """What OpenAI's CLIP was trained with."""
        return cls(Crop(side, side, side), 1 / 255, CLIP_MEAN, CLIP_STD)

    def tensor(self, images: Sequence[Pixels]) -> "torch.Tensor":
        """N crops (H, W, 3) uint8 → (N, 3, H, W) float32."""
        import torch  # here, so that ingest actors start without it

        pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() * self.factor
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (self.mean, self.std))
        return ((pixels - mean) / std).contiguous()


def read_preprocess(field: str, folder: Path) -> Preprocess:
    """Read the folder's ``preprocessor_config.json``.

    Raises:
        InputError: If there is none, or it does not lead to pictures of one fixed size.
    """
    settings = _settings(field, folder)
    try:
        crop = _crop(settings)
        factor = float(settings.get("rescale_factor", 1 / 255))
        normalises = settings.get("do_normalize", True)
        mean = tuple(map(float, settings["image_mean"])) if normalises else (0.0,) * 3
        std = tuple(map(float, settings["image_std"])) if normalises else (1.0,) * 3
        if len(mean) != 3 or len(std) != 3 or not all(std):
            raise ValueError("image_mean and image_std need three values")
    except (KeyError, TypeError, ValueError) as error:
        problem = f"has an image processor that cannot be used ({error})"
        raise InputError(field, folder, problem, "give resize or crop to a fixed size") from error
    return Preprocess(crop, factor if settings.get("do_rescale", True) else 1.0, mean, std)


def _settings(field: str, folder: Path) -> dict[str, Any]:
    for name in ("preprocessor_config.json", "processor_config.json"):
        if (folder / name).is_file():
            try:
                settings = json.loads((folder / name).read_text("utf-8"))
                settings = settings.get("image_processor", settings)
            except (ValueError, AttributeError) as error:
                raise InputError(field, folder / name, "is no JSON object", "repair it") from error
            if "image_mean" in settings or "size" in settings:
                return dict(settings)
    problem = "holds no preprocessor_config.json"
    raise InputError(field, folder, problem, "save the model's image processor beside it")


def _crop(settings: Mapping[str, Any]) -> Crop:
    crops = bool(settings.get("do_center_crop", False))
    size, window = settings["size"], settings.get("crop_size")
    if not settings.get("do_resize", True):
        raise ValueError("do_resize is off")
    resample = int(settings.get("resample", Image.Resampling.BICUBIC))
    if isinstance(size, int):
        size = {"shortest_edge": size} if crops else {"height": size, "width": size}
    if isinstance(window, int):
        window = {"height": window, "width": window}
    if "shortest_edge" not in size:
        if crops and window != size:
            raise ValueError("a crop after a resize to another fixed size")
        return Crop(int(size["height"]), int(size["width"]), None, resample)
    if not crops or window is None or "longest_edge" in size:
        raise ValueError("pictures would keep different sizes")
    height, width, edge = int(window["height"]), int(window["width"]), int(size["shortest_edge"])
    if max(height, width) > edge:
        raise ValueError("the crop is larger than the resized picture")
    return Crop(height, width, edge, resample)
