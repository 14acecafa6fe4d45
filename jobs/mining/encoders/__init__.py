"""Encoders by name: what a style or content encoder is, and where each one lives.

Descriptors are cheap and run where pictures are decoded. Models have weights, run in actor pools
of their own and are handed the crops that their image processor makes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Literal, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from i2l_model.errors import InputError
from jobs.mining.config import EncoderConfig

Kind = Literal["style", "content"]


class Encoder(Protocol):
    """Turns images and captions into vectors; loaded once in each actor."""

    def __call__(
        self, images: Sequence[NDArray[np.uint8]], captions: Sequence[str]
    ) -> NDArray[np.float32]:
        """Encode N images, each (h, w, 3) uint8 sRGB, and their captions to (N, D), unit rows."""
        ...


@dataclass(frozen=True, slots=True)
class EncoderEntry:
    """A registered encoder.

    Attributes:
        kind: What its vectors compare.
        location: ``module:class``, imported in the actor only.
        input_px: Short side in pixels at which images are handed to a descriptor; 0 for a model.
        min_similarity: Cosine that images of one style practically always exceed, calibrated on
            labelled data; style encoders only.
        version: Counted up when a descriptor's vectors change, so that they are computed again.
    """

    kind: Kind
    location: str
    input_px: int = 0
    min_similarity: float = -1.0
    version: int = 1

    @property
    def is_model(self) -> bool:
        """Whether it loads weights from ``path``."""
        return not self.input_px


# offline-style, on a drawn grid of 180 styles, of which two thirds share or vary their palettes:
# 99.9 % of the pairs of one style lie above .3, 89 % of the others below.
REGISTRY: dict[str, EncoderEntry] = {
    "offline-style": EncoderEntry(
        "style",
        "jobs.mining.style_descriptor:OfflineStyleEncoder",
        192,
        min_similarity=0.3,
        version=2,
    ),
    "offline-content": EncoderEntry(
        "content", "jobs.mining.content_descriptor:OfflineContentEncoder", 64
    ),
    "csd": EncoderEntry("style", "jobs.mining.encoders.csd:CsdEncoder"),
    "megastyle": EncoderEntry("style", "jobs.mining.encoders.vision:SiglipEncoder"),
    "dinov2": EncoderEntry("content", "jobs.mining.encoders.vision:Dinov2Encoder"),
    "siglip2": EncoderEntry("content", "jobs.mining.encoders.vision:SiglipEncoder"),
}


def encoder_entry(config: EncoderConfig, kind: Kind) -> EncoderEntry:
    """Look up an encoder and check that its settings fit it.

    Raises:
        InputError: If there is no such encoder, it is of the other kind, or settings do not fit.
    """
    known = ", ".join(n for n, entry in REGISTRY.items() if entry.kind == kind)
    entry = REGISTRY.get(config.name)
    field = f"mining.{kind}_encoder"
    if entry is None or entry.kind != kind:
        raise InputError(field, config.name, f"is no known {kind} encoder", f"use one of: {known}")
    if entry.is_model and not config.path:
        fix = f"give {{name: {config.name}, path: a folder or hub id}}"
        raise InputError(field, config.name, "is a model without a path", fix)
    if not entry.is_model and config.path:
        raise InputError(field, config.name, "takes no path", "leave out path")
    if config.text_path and not (entry.is_model and kind == "content"):
        problem = "takes no text_path"
        raise InputError(field, config.name, problem, "use a content model, or leave it out")
    return entry


def load_encoder(config: EncoderConfig | str) -> Encoder:
    """Import and construct an encoder; its name is enough for a descriptor."""
    config = EncoderConfig(name=config) if isinstance(config, str) else config
    entry = REGISTRY[config.name]
    module, _, attribute = entry.location.partition(":")
    kind = getattr(import_module(module), attribute)
    if not entry.is_model:
        return cast(Encoder, kind())
    field = f"mining.{entry.kind}_encoder"
    if not config.text_path:
        return cast(Encoder, kind(config, field))
    from jobs.mining.encoders.captioned import CaptionedEncoder

    return CaptionedEncoder(kind(config, field), config, field)
