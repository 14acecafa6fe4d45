"""Reads which content an image shows: a small convolutional network trained on stylegrid."""

import json
from dataclasses import dataclass
from itertools import pairwise

import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from i2l_model.assets import asset_path
from i2l_model.images import to_tensor

IMAGE_SIZE = 64


def build_network(num_contents: int) -> nn.Sequential:
    """Four strided convolutions and a linear; (B, 3, 64, 64) in [-1, 1] to logits (B, contents)."""
    widths = (3, 32, 64, 128, 128)
    layers: list[nn.Module] = []
    for narrow, wide in pairwise(widths):
        layers += [nn.Conv2d(narrow, wide, 3, padding=1), nn.GroupNorm(8, wide), nn.SiLU()]
        layers += [nn.Conv2d(wide, wide, 3, stride=2, padding=1), nn.SiLU()]
    layers += [nn.Flatten(), nn.Linear(widths[-1] * 16, 256), nn.SiLU()]
    return nn.Sequential(*layers, nn.Dropout(0.2), nn.Linear(256, num_contents))


@dataclass(frozen=True, slots=True)
class ContentClassifier:
    """A trained network with the names of what it tells apart."""

    network: nn.Module
    contents: tuple[str, ...]

    @torch.inference_mode()
    def probabilities(self, images: list[Image.Image]) -> Tensor:
        """Softmax over ``contents`` (B, len(contents)); images of any size."""
        pixels = to_tensor(images, IMAGE_SIZE)
        return torch.cat([F.softmax(self.network(part), dim=-1) for part in pixels.split(256)])

    def predict(self, images: list[Image.Image]) -> list[str]:
        """The likeliest content of each image."""
        return [self.contents[i] for i in self.probabilities(images).argmax(dim=-1).tolist()]


def load_classifier() -> ContentClassifier:
    """The shipped classifier."""
    folder = asset_path("tiny-classifier")
    contents = tuple(json.loads((folder / "config.json").read_text())["contents"])
    network = build_network(len(contents))
    weights = load_file(folder / "model.safetensors")
    network.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
    return ContentClassifier(network.eval(), contents)
