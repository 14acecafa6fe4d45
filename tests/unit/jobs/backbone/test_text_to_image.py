"""Latents are kept, but only for the images and the VAE that they came from."""

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.torch import save_file

from jobs.backbone.dataset import RenderedImages
from jobs.backbone.text_to_image import encode_all
from jobs.backbone.vae import build_vae


def images(seed: int, count: int = 2) -> RenderedImages:
    pixels = np.random.default_rng(seed).integers(0, 255, (count, 16, 16, 3), dtype=np.uint8)
    return RenderedImages(pixels, np.zeros(count, np.int64), [""] * count)


@pytest.fixture
def vae() -> AutoencoderKL:
    torch.manual_seed(0)
    model = build_vae().to(memory_format=torch.channels_last).requires_grad_(False).eval()
    model.register_to_config(shift_factor=0.5, scaling_factor=2.0)
    return model


def test_latents_of_the_same_source_are_kept(
    vae: AutoencoderKL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "latents.safetensors"
    first = encode_all(vae, images(0), path)
    assert first.shape == (2, 8, 4, 4)
    monkeypatch.setattr(vae, "encode", None)
    assert torch.equal(encode_all(vae, images(0), path), first)


@pytest.mark.parametrize("change", ["pixels", "count", "weights", "scale", "unmarked file"])
def test_stale_latents_are_made_again(change: str, vae: AutoencoderKL, tmp_path: Path) -> None:
    path = tmp_path / "latents.safetensors"
    data = images(0)
    stale = encode_all(vae, data, path)
    if change in ("pixels", "count"):
        data = images(1) if change == "pixels" else images(0, count=3)
    elif change == "weights":
        vae.encoder.conv_in.weight.mul_(2)
    elif change == "scale":
        vae.register_to_config(scaling_factor=3.0)
    else:
        save_file({"latents": torch.zeros(stale.shape)}, path)
    fresh = encode_all(vae, data, path)
    assert torch.equal(fresh, encode_all(vae, data, tmp_path / "other.safetensors"))
    assert torch.equal(fresh, stale) == (change == "unmarked file")
