"""Pretrains the tiny reference encoder to see local colour and texture; no labels are used.

Every patch token has to tell, through one linear layer, the colour around it and the energies of
the style descriptor's filters there.
"""

# B images, H W pixels, T patches, K filters, D descriptor

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from i2l_model.encoder import ReferenceEncoder
from i2l_model.tower_config import EncoderConfig
from jobs.backbone.dataset import RenderedImages
from jobs.backbone.fitting import FitConfig, fit
from jobs.mining.filter_bank import filter_bank
from jobs.mining.perception import oklab
from jobs.progress import Progress

ENCODER_FIT = FitConfig(
    steps=800, batch_size=64, lr=1e-3, warmup_steps=50, ema_decay=0.99, bf16=False
)
ENERGY_FLOOR = 1e-4
NUM_STATISTICS_IMAGES = 512


def local_descriptors(pixels_BHW3: Tensor, patch_size: int) -> Tensor:
    """Descriptors (B, T, K + 6) float32 of uint8 sRGB images, row by row of patches.

    For every patch: log10 mean energy of each filter, then mean and spread of OKLab.
    """
    lab = torch.from_numpy(oklab(pixels_BHW3.numpy())).permute(0, 3, 1, 2)
    filters = torch.from_numpy(filter_bank())
    spectrum = torch.fft.rfft2(lab[:, 0])
    responses = torch.fft.irfft2(spectrum[:, None] * filters, s=lab.shape[-2:])
    energies = F.avg_pool2d(responses.square(), patch_size)
    means = F.avg_pool2d(lab, patch_size)
    variances = F.avg_pool2d(lab.square(), patch_size) - means.square()
    planes = [(energies + ENERGY_FLOOR).log10(), means, variances.clamp_min(0).sqrt()]
    return torch.cat(planes, dim=1).flatten(2).mT


class LocalDescriptorModel(nn.Module):
    """The encoder and the linear layer that reads descriptors from its tokens."""

    def __init__(self, encoder: ReferenceEncoder, num_values: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.readout = nn.Linear(encoder.hidden_size, num_values)

    def forward(self, images: Tensor) -> Tensor:
        """Standardised descriptors (B, T, D) of images (B, 3, H, W) in [-1, 1]."""
        values: Tensor = self.readout(self.encoder(images))
        return values


def train_encoder(
    data: RenderedImages, folder: Path, progress: Progress, config: FitConfig = ENCODER_FIT
) -> ReferenceEncoder:
    """Trains (or resumes) the encoder on rendered images."""
    torch.manual_seed(config.seed)
    sizes = EncoderConfig(trainable=True)
    assert sizes.patch_size is not None, "a new tower has its sizes"
    patch_size = sizes.patch_size
    first = torch.from_numpy(data.pixels[:NUM_STATISTICS_IMAGES])
    sample = local_descriptors(first, patch_size).flatten(0, 1)
    mean, spread = sample.mean(0), sample.std(0).clamp_min(1e-3)
    model = LocalDescriptorModel(ReferenceEncoder(sizes), sample.shape[1])

    def loss_of_batch(generator: torch.Generator) -> Tensor:
        index = torch.randint(len(data), (config.batch_size,), generator=generator)
        wanted = local_descriptors(torch.from_numpy(data.pixels[index.numpy()]), patch_size)
        return F.mse_loss(model(data.images(index)), (wanted - mean) / spread)

    fit(model, loss_of_batch, config, folder, "encoder", progress)
    return model.encoder


def save_encoder(encoder: ReferenceEncoder, folder: Path) -> None:
    """Saves the tower in transformers' folder format, half precision, safetensors only."""
    encoder.vision.half().save_pretrained(folder)
