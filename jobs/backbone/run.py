"""Trains and checks the shipped tiny models: reference encoder, backbone, content classifier."""

import json
import logging
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, ZImagePipeline
from matplotlib.figure import Figure
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from i2l_model.backbones import load_backbone
from i2l_model.generation import generate
from jobs.backbone.classifier import CLASSIFIER_FIT, accuracy, save_classifier, train_classifier
from jobs.backbone.dataset import RenderedImages, rendered_images
from jobs.backbone.encoder import ENCODER_FIT, save_encoder, train_encoder
from jobs.backbone.fitting import FitConfig
from jobs.backbone.text_to_image import TRANSFORMER_FIT, train_text_to_image
from jobs.backbone.vae import VAE_FIT, train_vae
from jobs.corpus.captions import plain_caption
from jobs.corpus.classifier import ContentClassifier
from jobs.corpus.contents import CONTENT_NAMES
from jobs.progress import Progress

logger = logging.getLogger(__name__)

IMAGE_SIZE = 64
TEST_SEED_OFFSET = 1_000


class BackboneConfig(BaseModel):
    """How the tiny models are trained and checked."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_images: int = Field(40_000, ge=1, description="rendered training images")
    num_test_images: int = Field(2_000, ge=1, description="images of other styles, for the check")
    seed: int = Field(0, ge=0, description="seed of the style space that the models see")
    encoder: FitConfig = Field(ENCODER_FIT, description="fit of the reference encoder")
    vae: FitConfig = Field(VAE_FIT, description="fit of the VAE")
    transformer: FitConfig = Field(TRANSFORMER_FIT, description="fit of transformer and text")
    classifier: FitConfig = Field(CLASSIFIER_FIT, description="fit of the content classifier")
    samples_per_content: int = Field(20, ge=1, description="samples a content in the check")
    num_inference_steps: int = Field(20, ge=1, description="Euler steps in the check")
    guidance_scale: float = Field(2.0, ge=1, description="guidance in the check; 1 is off")


@dataclass(frozen=True, slots=True)
class BackboneResult:
    """Where the models are, and how well the classifier reads pictures and samples."""

    folder: Path
    accuracy_on_images: float
    accuracy_on_samples: float
    accuracy_by_content: dict[str, float]


def run_backbone(config: BackboneConfig, output: Path, progress: Progress) -> BackboneResult:
    """Trains all tiny models into ``output``, resumably: one folder each, named as the assets are.

    ``output/work`` keeps the training state; ``output/check`` gets the sample grid, the training
    curve and ``check.json``.
    """
    work, started = output / "work", time.monotonic()
    data = _training_images(config, work, progress)
    _fit_encoder(config, data, output, progress)
    held_out = rendered_images(
        work / "data",
        config.num_test_images,
        seed=config.seed + TEST_SEED_OFFSET,
        size=IMAGE_SIZE,
        progress=progress,
    )
    network = train_classifier(data, work, progress, config.classifier)
    save_classifier(network, output / "tiny-classifier")
    save_pipeline(train_pipeline(config, data, work, progress), output / "tiny-zimage")
    return _checked(
        config,
        output,
        ContentClassifier(network, CONTENT_NAMES),
        accuracy(network, held_out),
        time.monotonic() - started,
    )


def run_encoder(config: BackboneConfig, output: Path, progress: Progress) -> Path:
    """Trains the reference encoder alone, resumably; returns its folder."""
    data = _training_images(config, output / "work", progress)
    return _fit_encoder(config, data, output, progress)


def _fit_encoder(
    config: BackboneConfig, data: RenderedImages, output: Path, progress: Progress
) -> Path:
    folder = output / "tiny-encoder"
    save_encoder(train_encoder(data, output / "work", progress, config.encoder), folder)
    return folder


def _training_images(config: BackboneConfig, work: Path, progress: Progress) -> RenderedImages:
    return rendered_images(
        work / "data", config.num_images, seed=config.seed, size=IMAGE_SIZE, progress=progress
    )


def train_pipeline(
    config: BackboneConfig, data: RenderedImages, work: Path, progress: Progress
) -> ZImagePipeline:
    """Trains the VAE, then transformer and text encoder on its latents."""
    vae: AutoencoderKL = train_vae(data, work, progress, config.vae)
    vae.requires_grad_(False)
    return train_text_to_image(data, vae, work, progress, config.transformer)


def save_pipeline(pipeline: ZImagePipeline, folder: Path) -> None:
    """Saves in the diffusers folder format, half precision, safetensors only."""
    pipeline.to(torch.float16)
    pipeline.save_pretrained(folder, safe_serialization=True)


def _checked(
    config: BackboneConfig,
    output: Path,
    classifier: ContentClassifier,
    accuracy_on_images: float,
    seconds: float,
) -> BackboneResult:
    """Samples every content and reads the samples."""
    backbone = load_backbone(output / "tiny-zimage")
    contents = [name for name in CONTENT_NAMES for _ in range(config.samples_per_content)]
    images = generate(
        backbone,
        [plain_caption(name) for name in contents],
        seeds=list(range(len(contents))),
        num_inference_steps=config.num_inference_steps,
        guidance_scale=config.guidance_scale,
        batch_size=52,
    )
    right = [a == b for a, b in zip(classifier.predict(images), contents, strict=True)]
    per = config.samples_per_content
    by_content = {
        name: sum(right[i * per : (i + 1) * per]) / per for i, name in enumerate(CONTENT_NAMES)
    }
    check = output / "check"
    check.mkdir(parents=True, exist_ok=True)
    _grid(images, per).save(check / "samples.png")
    _curve(output / "work", check / "training-curve.png")
    result = BackboneResult(output, accuracy_on_images, sum(right) / len(right), by_content)
    report = {
        "accuracy_on_images": result.accuracy_on_images,
        "accuracy_on_samples": result.accuracy_on_samples,
        "accuracy_by_content": by_content,
        "num_samples": len(right),
        "seconds_of_this_run": round(seconds, 1),
        "config": config.model_dump(mode="json"),
    }
    (check / "check.json").write_text(json.dumps(report, indent=2))
    logger.info("samples read as prompted: %.1f %%", 100 * result.accuracy_on_samples)
    return result


def _grid(images: list[Image.Image], per_content: int) -> Image.Image:
    """Contents from left to right, samples from top to bottom (at most eight)."""
    rows = min(per_content, 8)
    side, columns = images[0].width, len(images) // per_content
    grid = Image.new("RGB", (columns * side, rows * side))
    for number, image in enumerate(images):
        column, row = divmod(number, per_content)
        if row < rows:
            grid.paste(image, (column * side, row * side))
    return grid


def _curve(work: Path, path: Path) -> None:
    """Loss over steps of the VAE and of the text-to-image model."""
    figure = Figure(figsize=(9, 3), layout="constrained")
    axes = figure.subplots(1, 2)
    for axis, name in zip(axes, ("vae", "text-to-image"), strict=True):
        lines = [json.loads(line) for line in (work / f"{name}.jsonl").read_text().splitlines()]
        axis.plot([line["step"] for line in lines], [line["loss"] for line in lines])
        axis.set(title=name, xlabel="step", ylabel="loss", yscale="log")
        axis.grid(alpha=0.3)
    figure.savefig(path, dpi=110)
