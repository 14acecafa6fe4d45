"""Trains the content classifier that reads generated images."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from jobs.backbone.dataset import RenderedImages
from jobs.backbone.fitting import FitConfig, fit
from jobs.corpus.classifier import build_network
from jobs.corpus.contents import CONTENT_NAMES
from jobs.progress import Progress

CLASSIFIER_FIT = FitConfig(steps=1200, batch_size=64, lr=1e-3, weight_decay=0.05, ema_decay=0.995)
MAX_SHIFT = 4  # pixels


def _augmented(images: Tensor, generator: torch.Generator) -> Tensor:
    """Shifts, blurs and noises a batch a little, so that drawn and generated images read alike."""
    dx, dy = torch.randint(-MAX_SHIFT, MAX_SHIFT + 1, (2,), generator=generator).tolist()
    images = torch.roll(images, (dy, dx), dims=(-2, -1))
    strength = torch.rand(1, generator=generator).item()
    if strength > 0.5:
        images = torch.lerp(images, F.avg_pool2d(images, 3, 1, 1), strength)
    return images + 0.1 * strength * torch.randn(images.shape, generator=generator)


def train_classifier(
    data: RenderedImages, folder: Path, progress: Progress, config: FitConfig = CLASSIFIER_FIT
) -> nn.Sequential:
    """Trains (or resumes) the classifier on rendered images."""
    torch.manual_seed(config.seed)
    network = build_network(len(CONTENT_NAMES))
    labels = torch.from_numpy(data.content_ids)

    def loss_of_batch(generator: torch.Generator) -> Tensor:
        index = torch.randint(len(data), (config.batch_size,), generator=generator)
        logits = network(_augmented(data.images(index), generator))
        return F.cross_entropy(logits.float(), labels[index], label_smoothing=0.05)

    fit(network, loss_of_batch, config, folder, "classifier", progress)
    return network


@torch.inference_mode()
def accuracy(network: nn.Module, data: RenderedImages) -> float:
    """Share of images whose content is read rightly."""
    right = 0
    for part in torch.arange(len(data)).split(256):
        guess = network(data.images(part)).argmax(dim=-1)
        right += int((guess == torch.from_numpy(data.content_ids)[part]).sum())
    return right / len(data)


def save_classifier(network: nn.Module, folder: Path) -> None:
    """Weights in half precision as safetensors, content names as JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: tensor.half().contiguous() for name, tensor in network.state_dict().items()}
    save_file(weights, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"contents": list(CONTENT_NAMES)}, indent=2))
