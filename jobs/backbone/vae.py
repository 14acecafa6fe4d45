"""The tiny VAE: AutoencoderKL, 64 px to 8 x 16 x 16 latents."""

from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from jobs.backbone.dataset import RenderedImages
from jobs.backbone.fitting import FitConfig, fit
from jobs.progress import Progress

LATENT_CHANNELS = 8
KL_WEIGHT = 3e-4
EDGE_WEIGHT = 1.0

VAE_FIT = FitConfig(
    steps=1000, batch_size=32, lr=2e-3, weight_decay=0.0, clip_norm=1.0, ema_decay=0.995
)


def build_vae() -> AutoencoderKL:
    """An untrained VAE with a spatial factor of 4."""
    channels = (32, 64, 64)
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * len(channels),
        up_block_types=("UpDecoderBlock2D",) * len(channels),
        block_out_channels=channels,
        layers_per_block=1,
        norm_num_groups=8,
        latent_channels=LATENT_CHANNELS,
        sample_size=64,
        use_quant_conv=False,
        use_post_quant_conv=False,
        mid_block_add_attention=False,
    )


def _differences(images: Tensor) -> tuple[Tensor, Tensor]:
    return images.diff(dim=-1), images.diff(dim=-2)


def vae_loss(vae: AutoencoderKL, images: Tensor, generator: torch.Generator) -> Tensor:
    """L1 on pixels and on their differences (texture counts as much as colour), and a small KL."""
    posterior = vae.encode(images).latent_dist
    decoded = vae.decode(posterior.sample(generator)).sample.float()
    loss = (decoded - images).abs().mean()
    for ours, truth in zip(_differences(decoded), _differences(images), strict=True):
        loss = loss + EDGE_WEIGHT * (ours - truth).abs().mean() / 2
    mean, logvar = posterior.mean.float(), posterior.logvar.float()
    divergence = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
    total: Tensor = loss + KL_WEIGHT * divergence
    return total


def train_vae(
    data: RenderedImages, folder: Path, progress: Progress, config: FitConfig = VAE_FIT
) -> AutoencoderKL:
    """Trains (or resumes) the VAE and sets its latent scale and shift from the data."""
    torch.manual_seed(config.seed)
    vae = build_vae().to(memory_format=torch.channels_last)

    def loss_of_batch(generator: torch.Generator) -> Tensor:
        index = torch.randint(len(data), (config.batch_size,), generator=generator)
        return vae_loss(vae, data.images(index), generator)

    fit(vae, loss_of_batch, config, folder, "vae", progress)
    with torch.inference_mode():
        index = torch.arange(512)
        latents = vae.encode(data.images(index)).latent_dist.mode()
    vae.register_to_config(
        shift_factor=round(latents.mean().item(), 5),
        scaling_factor=round(1 / latents.std().item(), 5),
    )
    return vae
