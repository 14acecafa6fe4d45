"""The main image encoder: reference images to SigLIP's patch tokens, or to its pooled features."""

# B images, H W pixels, T patch tokens, D features

from typing import Any

import torch
from transformers import SiglipVisionConfig, SiglipVisionModel

from i2l_model.errors import InputError
from i2l_model.released_towers import RELEASED_ENCODERS
from i2l_model.tower import VisionTower, given_by_sizes, load_tower, load_tower_config
from i2l_model.tower_config import EncoderConfig


class ReferenceEncoder(VisionTower):
    """A SigLIP vision tower that returns its patch tokens after the final layer norm.

    Args:
        config: Which tower.
        pooled: Return the pooled features, as the only token, instead of the patches.

    Raises:
        InputError: If ``path_or_id`` holds no such tower.
    """

    def __init__(self, config: EncoderConfig, *, pooled: bool = False) -> None:
        if config.path_or_id is None:
            vision: Any = SiglipVisionModel(_vision_config(config, pooled))
        else:
            vision = load_tower(SiglipVisionModel, config.path_or_id, "encoder", "SigLIP")
        if pooled and not vision.use_head:
            problem = "has no head, whose pooled features version 1 reads"
            raise InputError("encoder.path_or_id", config.path_or_id, problem, "give a whole tower")
        if vision.use_head and not pooled:  # its weights would get no gradient
            vision.use_head = False
            del vision.head
        super().__init__(vision, trainable=config.trainable, pooled=pooled)
        self.config = config

    @property
    def image_size(self) -> int:
        """Side of the input images in pixels."""
        return int(self.vision.config.image_size)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the patch tokens (B, T, D) of images (B, 3, H, W) in [-1, 1], H = W = image_size.

        Raises:
            InputError: If the images have another size.
        """
        self.check_images(images, self.image_size)
        with self.gradients():
            output = self.vision(pixel_values=images)
        tokens: torch.Tensor = output.last_hidden_state
        return output.pooler_output[:, None] if self.pooled else tokens

    def sizes(self) -> EncoderConfig:
        """Return a config that builds the same tower without its source, for own weights."""
        sizes = _sizes_of(self.vision.config)
        return sizes.model_copy(update={"trainable": self.config.trainable})


def encoder_sizes(config: EncoderConfig) -> EncoderConfig:
    """Return the same tower given by its sizes; of a pretrained one, only its config is read.

    Of a released tower, known by its hub id, nothing is read.

    Raises:
        InputError: If ``path_or_id`` holds no such config.
    """
    return given_by_sizes(config, RELEASED_ENCODERS, _read_sizes)


def _read_sizes(path_or_id: str) -> EncoderConfig:
    return _sizes_of(load_tower_config(SiglipVisionConfig, path_or_id, "encoder", "SigLIP"))


def _sizes_of(vision: Any) -> EncoderConfig:
    """The sizes that transformers' configuration of a tower holds."""
    return EncoderConfig(
        image_size=vision.image_size,
        patch_size=vision.patch_size,
        hidden_size=vision.hidden_size,
        num_layers=vision.num_hidden_layers,
        num_heads=vision.num_attention_heads,
        intermediate_size=vision.intermediate_size,
    )


def _vision_config(config: EncoderConfig, pooled: bool) -> SiglipVisionConfig:
    return SiglipVisionConfig(
        image_size=config.image_size,
        patch_size=config.patch_size,
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        num_hidden_layers=config.num_layers,
        num_attention_heads=config.num_heads,
        vision_use_head=pooled,
    )
