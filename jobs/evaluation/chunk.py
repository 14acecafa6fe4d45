"""Evaluates one chunk of styles: the unit of work that a worker does and a rerun keeps."""

# N styles, K samples a style, C channels, H height, W width

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from i2l_model.lora.factors import LoraFactors
from jobs.evaluation.conditions import (
    NULL,
    REAL,
    WRONG_REFS,
    budget_condition,
    i2l_condition,
    picture_tensor,
    predict_loras,
    sample_condition,
)
from jobs.evaluation.config import EvaluationConfig
from jobs.evaluation.held_out import HeldOutStyle
from jobs.evaluation.high_sigma_loss import high_sigma_losses
from jobs.evaluation.measurement import StyleBatch, Values, measure
from jobs.evaluation.metrics.kernel_distance import latent_features
from jobs.evaluation.metrics.patches import set_quantiles
from jobs.evaluation.models import EvaluationModels
from jobs.evaluation.oracles import Oracles, render_oracles
from jobs.evaluation.per_style_lora import StyleLora, train_style_lora
from jobs.provenance import json_hash


@dataclass(frozen=True, slots=True)
class ChunkPlan:
    """A chunk's styles and which of them get a trained LoRA, a row in the report, sample files."""

    index: int
    styles: tuple[HeldOutStyle, ...]
    style_lora: frozenset[str]
    pictured: frozenset[str]
    sampled: frozenset[str]


@dataclass(slots=True)
class ChunkResult:
    """What one chunk measured.

    Attributes:
        reader: Which judge read the contents.
        values: condition -> metric -> style -> one value a sample.
        losses: condition -> style -> one value a target.
        seconds: What was timed -> style -> seconds.
        features: condition -> (samples, D) latent features, in the order of `feature_styles`.
        pictures: "<style>/<condition>" -> (K,3,h,w) uint8 for the report.
        loras: "<style>" -> the LoRA from the most references, of sampled styles.
        samples: "<style>/<condition>" -> (K,3,H,W) uint8 at full size, of sampled styles.
    """

    reader: str
    values: dict[str, Values] = field(default_factory=dict)
    losses: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    seconds: dict[str, dict[str, float]] = field(default_factory=dict)
    features: dict[str, Tensor] = field(default_factory=dict)
    feature_styles: dict[str, list[str]] = field(default_factory=dict)
    pictures: dict[str, Tensor] = field(default_factory=dict)
    loras: dict[str, LoraFactors] = field(default_factory=dict)
    samples: dict[str, Tensor] = field(default_factory=dict)


class ChunkEvaluation:
    """The steps of one chunk, in the order of `run`."""

    def __init__(self, plan: ChunkPlan, models: EvaluationModels, config: EvaluationConfig) -> None:
        self.plan = plan
        self.models = models
        self.config = config
        self.size = config.image_size or models.backbone.image_size
        self.result = ChunkResult(reader=models.reader.name)
        self.references = {
            style.name: picture_tensor(style.references, self.size) for style in plan.styles
        }
        self.quantiles = {
            name: set_quantiles((pictures + 1) / 2) for name, pictures in self.references.items()
        }

    def run(self) -> ChunkResult:
        """Measure every condition on the chunk's styles."""
        styles = self.plan.styles
        loras = self._predict()
        trained = {
            style.name: self._train(style) for style in styles if style.name in self.plan.style_lora
        }
        self._measure_real()
        for condition, lora in loras.items():
            self._measure(condition, styles, lora)
        for condition, names, lora in _by_budget(trained):
            self._measure(condition, [style for style in styles if style.name in names], lora)
        self._losses(styles, loras)
        for condition, names, lora in _by_budget(trained):
            subset = [style for style in styles if style.name in names]
            self._losses(subset, {condition: lora})
        self._time_predictions()
        return self.result

    def _predict(self) -> dict[str, LoraFactors | None]:
        styles, predictor = self.plan.styles, self.models.predictor
        right = [style.references for style in styles]
        wrong = [style.wrong_references for style in styles]
        loras: dict[str, LoraFactors | None] = {
            NULL: None,
            WRONG_REFS: predict_loras(predictor, wrong, num_refs=self.config.max_refs),
        }
        for num_refs in self.config.num_refs:
            loras[i2l_condition(num_refs)] = predict_loras(predictor, right, num_refs=num_refs)
        best = loras[i2l_condition(self.config.max_refs)]
        assert best is not None
        for position, style in enumerate(styles):
            if style.name in self.plan.sampled:
                self.result.loras[style.name] = best.select([position])
        return loras

    def _train(self, style: HeldOutStyle) -> list[StyleLora]:
        trained = train_style_lora(
            self.models.backbone,
            self.references[style.name],
            [image.prompt for image in style.references],
            self.config,
            seed=style.prompts[0].seeds[0],
        )
        for lora in trained:
            timed = self.result.seconds.setdefault(budget_condition(lora.num_steps), {})
            timed[style.name] = lora.seconds
        return trained

    def _measure_real(self) -> None:
        """The same metrics on real pictures of the styles: what a perfect sample would score."""
        styles = self.plan.styles
        pictures = torch.cat([picture_tensor(style.targets, self.size) for style in styles])
        subjects = [[image.subject for image in style.targets] for style in styles]
        self._store(REAL, styles, (pictures + 1) / 2, subjects, oracles=None)

    def _measure(
        self, condition: str, styles: Sequence[HeldOutStyle], lora: LoraFactors | None
    ) -> None:
        samples = self.draw(condition, styles, lora)
        subjects = [
            [prompt.subject for prompt in style.prompts for _ in prompt.seeds] for style in styles
        ]
        oracles = render_oracles(styles, size=self.size)
        self._store(condition, styles, samples, subjects, oracles)
        if condition == NULL and oracles is not None:
            self._keep_pictures("oracle", styles, oracles.images)

    def draw(
        self, condition: str, styles: Sequence[HeldOutStyle], lora: LoraFactors | None
    ) -> Tensor:
        """Samples (N*K,3,H,W) in [0,1] of one condition."""
        return sample_condition(self.models.backbone, styles, lora, self.config)

    def _store(
        self,
        condition: str,
        styles: Sequence[HeldOutStyle],
        samples: Tensor,
        subjects: list[list[str]],
        oracles: Oracles | None,
    ) -> None:
        shown = {s.name: s.wrong_references for s in styles} if condition == WRONG_REFS else {}
        references = {style.name: (self.references[style.name] + 1) / 2 for style in styles}
        batch = StyleBatch(styles, references, self.quantiles, subjects, oracles, shown)
        self.result.values[condition] = measure(samples, batch, self.models.reader, self.config)
        backbone = self.models.backbone
        latents = [
            backbone.encode_images(part * 2 - 1) for part in samples.split(self.config.batch_size)
        ]
        self.result.features[condition] = latent_features(torch.cat(latents)).cpu()
        self.result.feature_styles[condition] = [
            style.name for style in styles for _ in range(batch.per_style)
        ]
        self._keep_pictures(condition, styles, samples)

    def _keep_pictures(
        self, condition: str, styles: Sequence[HeldOutStyle], samples: Tensor
    ) -> None:
        for style, images in zip(styles, samples.unflatten(0, (len(styles), -1)), strict=True):
            pixels = (images * 255).round().byte()
            if style.name in self.plan.pictured:
                small = _shrunk(images, self.config.report_image_size)
                self.result.pictures[f"{style.name}/{condition}"] = small
            if style.name in self.plan.sampled:
                self.result.samples[f"{style.name}/{condition}"] = pixels

    def _losses(self, styles: Sequence[HeldOutStyle], loras: dict[str, LoraFactors | None]) -> None:
        backbone = self.models.backbone
        targets = [image for style in styles for image in style.targets]
        latents = backbone.encode_images(picture_tensor(targets, self.size))
        embeds = backbone.encode_prompts([image.prompt for image in targets])
        # A seed a style: a style's losses depend neither on its chunk nor on the condition.
        seeds = [int(json_hash([style.name, self.config.seed])[:7], 16) for style in styles]
        for condition, lora in loras.items():
            column = high_sigma_losses(
                backbone, latents, embeds, lora, min_sigma=self.config.loss_min_sigma, seeds=seeds
            )
            per_style = np.array(column).reshape(len(styles), -1).tolist()
            by_style = self.result.losses.setdefault(condition, {})
            by_style.update(zip([style.name for style in styles], per_style, strict=True))

    def _time_predictions(self) -> None:
        """Seconds from encoded reference images to LoRA factors, after a warm-up."""
        predictor = self.models.predictor
        for num_refs in self.config.num_refs:
            condition = i2l_condition(num_refs)
            predict_loras(predictor, [self.plan.styles[0].references], num_refs=num_refs)
            timed = self.result.seconds.setdefault(condition, {})
            for style in self.plan.styles:
                started = time.perf_counter()
                factors = predict_loras(predictor, [style.references], num_refs=num_refs)
                # Reading one number back waits for the device.
                float(next(iter(factors.lora_B.values())).flatten()[0])
                timed[style.name] = time.perf_counter() - started


def _by_budget(
    trained: dict[str, list[StyleLora]],
) -> list[tuple[str, set[str], LoraFactors]]:
    """The LoRAs of all styles at each step budget as one batch."""
    if not trained:
        return []
    return [
        (
            budget_condition(column[0].num_steps),
            set(trained),
            LoraFactors.concat([lora.factors for lora in column]),
        )
        for column in zip(*trained.values(), strict=True)
    ]


def _shrunk(images: Tensor, size: int) -> Tensor:
    if images.shape[-1] > size:
        images = F.interpolate(images, size=(size, size), mode="area")
    return (images.clamp(0, 1) * 255).round().byte()
