"""Trains the tiny reference encoder: a SigLIP vision tower that reads style parameters.

Attention-pooled patch tokens predict the colours, kinds and amounts of the style an image was
drawn in, so the tokens hold appearance before any LoRA is predicted from them.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from i2l_model.encoder import EncoderConfig, ReferenceEncoder
from jobs.backbone.dataset import IMAGES_PER_STYLE, RenderedImages
from jobs.backbone.fitting import FitConfig, fit
from jobs.corpus.styles import BACKGROUNDS, MEDIA, SHADINGS, TEXTURES, Style, sample_style
from jobs.progress import Progress

ENCODER = EncoderConfig(trainable=True)
ENCODER_FIT = FitConfig(steps=1500, batch_size=64, lr=1e-3, warmup_steps=200, ema_decay=0.998)
NUM_POOLS = 4
KINDS = (len(BACKGROUNDS), len(TEXTURES), len(SHADINGS), len(MEDIA))
KIND_WEIGHT = 0.1


def style_amounts(style: Style) -> list[float]:
    """Continuous parameters of a style, each scaled to about [0, 1]."""
    colours = (style.background, style.background_2, style.primary, style.secondary, style.accent)
    return [
        *(channel for colour in (*colours, style.outline) for channel in colour),
        style.outline_width * 10,
        style.texture_strength * (style.texture_kind != "flat"),
        style.texture_frequency / 13,
        style.shading_strength * (style.shading_kind != "none"),
        style.edge_amplitude * 20,
        style.medium_strength * (style.medium_kind != "clean"),
        style.grain_strength * 6,
        style.softness * 20,
        *(
            f(2 * angle) / 2 + 0.5
            for angle in (style.background_angle, style.texture_angle, style.medium_angle)
            for f in (np.cos, np.sin)
        ),
        np.cos(style.shading_angle) / 2 + 0.5,
        np.sin(style.shading_angle) / 2 + 0.5,
    ]


def style_kinds(style: Style) -> list[int]:
    """The discrete parameters as class numbers, in the order of ``KINDS``."""
    return [
        BACKGROUNDS.index(style.background_kind),
        TEXTURES.index(style.texture_kind),
        SHADINGS.index(style.shading_kind),
        MEDIA.index(style.medium_kind),
    ]


@dataclass(frozen=True, slots=True)
class StyleReading:
    """Predicted amounts (B, A) and one (B, classes) tensor of logits a kind."""

    amounts: Tensor
    kinds: tuple[Tensor, ...]


class StyleReader(nn.Module):
    """The encoder with an attention pool and a linear read-out, which only training uses."""

    def __init__(self, num_amounts: int) -> None:
        super().__init__()
        self.encoder = ReferenceEncoder(ENCODER)
        width = self.encoder.hidden_size
        self.probes = nn.Parameter(torch.randn(NUM_POOLS, width) * width**-0.5)
        self.num_amounts = num_amounts
        self.read = nn.Sequential(
            nn.Linear(NUM_POOLS * width, 256), nn.GELU(), nn.Linear(256, num_amounts + sum(KINDS))
        )

    def forward(self, images: Tensor) -> StyleReading:
        """Read images (B, 3, H, W) in [-1, 1]."""
        tokens = self.encoder(images)
        attention = F.softmax(tokens @ self.probes.T, dim=1)
        pooled = torch.einsum("btp,btd->bpd", attention, tokens).flatten(1)
        out = self.read(pooled).float()
        amounts, *kinds = out.split([self.num_amounts, *KINDS], dim=-1)
        return StyleReading(amounts, tuple(kinds))


def train_encoder(
    data: RenderedImages, folder: Path, progress: Progress, config: FitConfig = ENCODER_FIT
) -> ReferenceEncoder:
    """Trains (or resumes) the encoder on rendered images."""
    torch.manual_seed(config.seed)
    styles = [sample_style(i, data.seed) for i in range(-(-len(data) // IMAGES_PER_STYLE))]
    amounts = torch.tensor([style_amounts(style) for style in styles], dtype=torch.float32)
    kinds = torch.tensor([style_kinds(style) for style in styles])
    reader = StyleReader(amounts.shape[1])

    def loss_of_batch(generator: torch.Generator) -> Tensor:
        index = torch.randint(len(data), (config.batch_size,), generator=generator)
        reading, style = reader(data.images(index)), index // IMAGES_PER_STYLE
        loss = F.smooth_l1_loss(reading.amounts, amounts[style], beta=0.1)
        for logits, labels in zip(reading.kinds, kinds[style].T, strict=True):
            loss = loss + KIND_WEIGHT * F.cross_entropy(logits, labels)
        return loss

    fit(reader, loss_of_batch, config, folder, "encoder", progress)
    return reader.encoder


def save_encoder(encoder: ReferenceEncoder, folder: Path) -> None:
    """Saves the vision tower as transformers does, half precision."""
    encoder.vision.to(torch.float16).save_pretrained(folder, safe_serialization=True)
