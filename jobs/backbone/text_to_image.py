"""Trains the tiny Z-Image transformer and its text encoder together on VAE latents."""

import hashlib
from pathlib import Path

import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    ZImagePipeline,
    ZImageTransformer2DModel,
)
from torch import Tensor, nn
from transformers import Qwen2Tokenizer, Qwen3Model

from i2l_model.weights import read_weights, write_weights
from jobs.backbone.dataset import RenderedImages
from jobs.backbone.fitting import FitConfig, fit
from jobs.backbone.text import (
    TEXT_DIM,
    build_caption_tokenizer,
    build_text_encoder,
    embed,
    token_ids,
)
from jobs.backbone.vae import LATENT_CHANNELS
from jobs.progress import Progress

SIGMA_SHIFT = 2.0
CAPTION_DROPOUT = 0.1

TRANSFORMER_FIT = FitConfig(
    steps=4500,
    stop_step=3000,  # by then a classifier reads every sample
    batch_size=64,
    lr=1.5e-3,
    warmup_steps=200,
    ema_decay=0.999,
)


def build_transformer() -> ZImageTransformer2DModel:
    """An untrained Z-Image transformer of 3.9 M parameters: 4 + 1 + 1 blocks of width 192."""
    return ZImageTransformer2DModel(
        all_patch_size=(2,),
        all_f_patch_size=(1,),
        in_channels=LATENT_CHANNELS,
        dim=192,
        n_layers=4,
        n_refiner_layers=1,
        n_heads=6,
        n_kv_heads=6,
        cap_feat_dim=TEXT_DIM,
        axes_dims=[8, 12, 12],
        axes_lens=[512, 64, 64],
    )


class _TextToImage(nn.Module):
    """What learns: transformer and text encoder as one module."""

    def __init__(self, transformer: ZImageTransformer2DModel, text_encoder: Qwen3Model) -> None:
        super().__init__()
        self.transformer, self.text_encoder = transformer, text_encoder

    def velocity(self, latents: Tensor, sigmas: Tensor, ids: list[Tensor]) -> Tensor:
        """Velocity ``noise - data`` (B, C, h, w) at noise levels ``sigmas`` (B,)."""
        prompt_embeds = embed(self.text_encoder, ids)
        samples = list(latents[:, :, None])
        raw = self.transformer(samples, 1 - sigmas, prompt_embeds, return_dict=False)[0]
        return -torch.stack(raw).squeeze(2).float()


def _blocks(transformer: ZImageTransformer2DModel) -> list[nn.Module]:
    return [*transformer.layers, *transformer.noise_refiner, *transformer.context_refiner]


@torch.inference_mode()
def encode_all(
    vae: AutoencoderKL, data: RenderedImages, path: Path, batch_size: int = 128
) -> Tensor:
    """Scaled latents (N, C, h, w) fp16, kept at ``path`` until the images or the VAE change."""
    source = _source_hash(vae, data)
    if path.exists():
        tensors, metadata = read_weights(path, field="latents")
        if metadata.get("source") == source:
            return tensors["latents"]
    parts = []
    for start in range(0, len(data), batch_size):
        index = torch.arange(start, min(start + batch_size, len(data)))
        latents = vae.encode(data.images(index)).latent_dist.mode()
        latents = (latents - vae.config.shift_factor) * vae.config.scaling_factor
        parts.append(latents.half())
    latents = torch.cat(parts)
    write_weights({"latents": latents}, path, {"source": source})
    return latents


def _source_hash(vae: AutoencoderKL, data: RenderedImages) -> str:
    """sha256 of all that decides the latents: the pixels, and the VAE's weights and scale."""
    scale = (vae.config.shift_factor, vae.config.scaling_factor)
    digest = hashlib.sha256(np.ascontiguousarray(data.pixels).data)
    digest.update(f"{data.pixels.shape} {scale}".encode())
    for name, tensor in sorted(vae.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().numpy())
    return digest.hexdigest()


def train_text_to_image(
    data: RenderedImages,
    vae: AutoencoderKL,
    folder: Path,
    progress: Progress,
    config: FitConfig = TRANSFORMER_FIT,
) -> ZImagePipeline:
    """Trains (or resumes) the backbone; returns the whole pipeline, ready to be saved.

    Objective: mean squared error of the velocity at sigmas of the uniform grid, shifted as the
    scheduler shifts them; a tenth of the captions is empty, for classifier-free guidance.
    """
    torch.manual_seed(config.seed)
    tokenizer: Qwen2Tokenizer = build_caption_tokenizer()
    model = _TextToImage(build_transformer(), build_text_encoder(len(tokenizer)))
    for block in _blocks(model.transformer):  # 1.3 times as fast on CPU
        block.compile()
    latents = encode_all(vae, data, folder / "latents.safetensors")
    ids, empty = token_ids(tokenizer, data.captions), token_ids(tokenizer, [""])[0]

    def loss_of_batch(generator: torch.Generator) -> Tensor:
        size = config.batch_size
        index = torch.randint(len(data), (size,), generator=generator)
        dropped = torch.rand(size, generator=generator) < CAPTION_DROPOUT
        uniform = torch.rand(size, generator=generator)
        sigmas = SIGMA_SHIFT * uniform / (1 + (SIGMA_SHIFT - 1) * uniform)
        clean = latents[index].float()
        noise = torch.randn(clean.shape, generator=generator)
        level = sigmas.view(-1, 1, 1, 1)
        chosen = [empty if d else ids[i] for i, d in zip(index, dropped, strict=True)]
        velocity = model.velocity((1 - level) * clean + level * noise, sigmas, chosen)
        return (velocity - (noise - clean)).square().mean()

    fit(model, loss_of_batch, config, folder, "text-to-image", progress)
    return ZImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=SIGMA_SHIFT),
        vae=vae,
        text_encoder=model.text_encoder,
        tokenizer=tokenizer,
        transformer=model.transformer,
    )
