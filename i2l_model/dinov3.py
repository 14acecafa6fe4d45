"""The optional second image encoder: DINOv3's patch tokens, or its class token."""

# B images, H W pixels, T patch tokens, D features

from typing import Any

import torch
from transformers import DINOv3ViTConfig, DINOv3ViTModel

from i2l_model.errors import InputError
from i2l_model.released_towers import RELEASED_DINOV3
from i2l_model.tower import VisionTower, given_by_sizes, load_tower, load_tower_config
from i2l_model.tower_config import Dinov3Config

_MEAN = (0.485, 0.456, 0.406)  # of ImageNet, for pixels in [0, 1]
_STD = (0.229, 0.224, 0.225)


class Dinov3Encoder(VisionTower):
    """A DINOv3 tower that reads the references at the main encoder's size.

    Args:
        config: Which tower.
        image_size: Side of the images in pixels.
        pooled: Return the class token only, instead of the patches.

    Raises:
        InputError: If ``path_or_id`` holds no such tower, or its patches do not tile the images.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, config: Dinov3Config, *, image_size: int, pooled: bool = False) -> None:
        if config.path_or_id is None:
            vision: Any = DINOv3ViTModel(_vision_config(config, image_size))
        else:
            vision = load_tower(DINOv3ViTModel, config.path_or_id, "dinov3", "DINOv3")
            vision.config.pos_embed_rescale = None  # of the pretraining: random positions
        patch = int(vision.config.patch_size)
        if image_size % patch:
            problem = f"does not divide the encoder's image size ({image_size})"
            raise InputError("dinov3.patch_size", patch, problem, "use another tower")
        vision.embeddings.mask_token.requires_grad_(False)  # of the pretraining, never read
        super().__init__(vision, trainable=config.trainable, pooled=pooled)
        self.config = config
        self.image_size = image_size
        # [-1, 1] to DINOv3's own normalisation: (x / 2 + 1 / 2 - mean) / std
        mean, std = torch.tensor(_MEAN), torch.tensor(_STD)
        self.register_buffer("mean", (2 * mean - 1).view(3, 1, 1), persistent=False)
        self.register_buffer("std", (2 * std).view(3, 1, 1), persistent=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the patch tokens (B, T, D) of images (B, 3, H, W) in [-1, 1], H = W = image_size.

        Raises:
            InputError: If the images have another size.
        """
        self.check_images(images, self.image_size)
        with self.gradients():
            pixels = (images - self.mean) / self.std
            tokens: torch.Tensor = self.vision(pixel_values=pixels).last_hidden_state
        first_patch = 1 + self.vision.config.num_register_tokens
        return tokens[:, :1] if self.pooled else tokens[:, first_patch:]

    def sizes(self) -> Dinov3Config:
        """Return a config that builds the same tower without its source, for own weights."""
        sizes = _sizes_of(self.vision.config)
        return sizes.model_copy(update={"trainable": self.config.trainable})


def dinov3_sizes(config: Dinov3Config) -> Dinov3Config:
    """Return the same tower given by its sizes; of a pretrained one, only its config is read.

    Of a released tower, known by its hub id, nothing is read.

    Raises:
        InputError: If ``path_or_id`` holds no such config.
    """
    return given_by_sizes(config, RELEASED_DINOV3, _read_sizes)


def _read_sizes(path_or_id: str) -> Dinov3Config:
    return _sizes_of(load_tower_config(DINOv3ViTConfig, path_or_id, "dinov3", "DINOv3"))


def _sizes_of(vision: Any) -> Dinov3Config:
    """The sizes that transformers' configuration of a tower holds."""
    return Dinov3Config(
        patch_size=vision.patch_size,
        hidden_size=vision.hidden_size,
        num_layers=vision.num_hidden_layers,
        num_heads=vision.num_attention_heads,
        intermediate_size=vision.intermediate_size,
        num_registers=vision.num_register_tokens,
        gated_mlp=vision.use_gated_mlp,
        query_bias=vision.query_bias,
        key_bias=vision.key_bias,
        value_bias=vision.value_bias,
        hidden_act=vision.hidden_act,
    )


def _vision_config(config: Dinov3Config, image_size: int) -> DINOv3ViTConfig:
    return DINOv3ViTConfig(
        image_size=image_size,
        patch_size=config.patch_size,
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        num_hidden_layers=config.num_layers,
        num_attention_heads=config.num_heads,
        num_register_tokens=config.num_registers,
        use_gated_mlp=config.gated_mlp,
        query_bias=config.query_bias,
        key_bias=config.key_bias,
        value_bias=config.value_bias,
        hidden_act=config.hidden_act,
        pos_embed_rescale=None,  # of the pretraining: random positions
    )
