"""Reads what a sample shows: prompt alignment and content leakage both count its answers."""

# B batch, C channels, H height, W width

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from i2l_model.backbones.base import Backbone
from i2l_model.flow import add_noise, flow_loss
from i2l_model.images import to_images
from jobs.corpus.classifier import ContentClassifier

READING_SIGMAS = (0.5, 0.7, 0.85)
NOISE_SEED = 11


@dataclass(frozen=True, slots=True)
class Candidate:
    """Something that a sample may show, with a prompt for it."""

    subject: str
    prompt: str


class PromptReader(Protocol):
    """Says what each sample shows."""

    name: str

    def read(self, samples_BCHW: Tensor, candidates: Sequence[Sequence[Candidate]]) -> list[str]:
        """The subject of each sample in [0,1]; `candidates` holds a list a sample."""
        ...


class ClassifierReader:
    """Asks the content classifier; it knows its contents and needs no candidates."""

    name = "classifier"

    def __init__(self, classifier: ContentClassifier) -> None:
        self.classifier = classifier

    def read(self, samples_BCHW: Tensor, candidates: Sequence[Sequence[Candidate]]) -> list[str]:
        """See `PromptReader`."""
        return list(self.classifier.predict(to_images(samples_BCHW * 2 - 1)))


class BackboneReader:
    """Takes the candidate whose prompt explains the sample best.

    The backbone without LoRA denoises the sample under each prompt with the same noise; the least
    flow-matching error wins (a diffusion classifier, Li et al. 2023). Works with any prompts.
    """

    name = "backbone"

    def __init__(self, backbone: Backbone, *, batch_size: int) -> None:
        self.backbone = backbone
        self.batch_size = batch_size

    @torch.no_grad()
    def read(self, samples_BCHW: Tensor, candidates: Sequence[Sequence[Candidate]]) -> list[str]:
        """See `PromptReader`."""
        prompts = sorted({c.prompt for options in candidates for c in options})
        encoded = self.backbone.encode_prompts(prompts)
        embeds = dict(zip(prompts, encoded, strict=True))
        images = (samples_BCHW * 2 - 1).to(self.backbone.device, self.backbone.dtype)
        latents = torch.cat(
            [self.backbone.encode_images(part) for part in images.split(self.batch_size)]
        )
        rows = [
            (row, column, sigma)
            for row, options in enumerate(candidates)
            for column in range(len(options))
            for sigma in READING_SIGMAS
        ]
        errors: dict[tuple[int, int], float] = {}
        for start in range(0, len(rows), self.batch_size):
            part = rows[start : start + self.batch_size]
            prompt_embeds = [embeds[candidates[row][column].prompt] for row, column, _ in part]
            loss = self._errors(latents, part, prompt_embeds)
            for (row, column, _), value in zip(part, loss, strict=True):
                errors[row, column] = errors.get((row, column), 0.0) + value
        return [
            min(enumerate(options), key=lambda option: errors[row, option[0]])[1].subject
            for row, options in enumerate(candidates)
        ]

    def _errors(
        self,
        latents_BCHW: Tensor,
        rows: Sequence[tuple[int, int, float]],
        prompt_embeds: Sequence[Tensor],
    ) -> list[float]:
        data = latents_BCHW[[row for row, _, _ in rows]]
        generator = torch.Generator().manual_seed(NOISE_SEED)
        # One noise for all: the candidates of a sample must differ by the prompt alone.
        noise = self.backbone.noise(data.shape[1:], generator).to(data).expand_as(data)
        sigmas = torch.tensor([sigma for _, _, sigma in rows]).to(data)
        velocity = self.backbone.velocity(
            add_noise(data, noise, sigmas), sigmas, list(prompt_embeds)
        )
        errors: list[float] = flow_loss(velocity, data, noise).tolist()
        return errors
