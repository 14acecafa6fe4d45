"""All per-sample metrics of one condition."""

# B samples, C channels, H height, W width

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from jobs.evaluation.config import EvaluationConfig
from jobs.evaluation.held_out import HeldOutStyle
from jobs.evaluation.held_out_images import LabelledImage
from jobs.evaluation.metrics.copying import copied
from jobs.evaluation.metrics.patches import reference_distances
from jobs.evaluation.metrics.prompt_reading import Candidate, PromptReader
from jobs.evaluation.metrics.quality import contrast, failed_samples, log_ratio_errors, sharpness
from jobs.evaluation.metrics.style_parts import part_distances
from jobs.evaluation.oracles import Oracles

# metric -> style -> values of its samples
Values = dict[str, dict[str, list[float]]]


@dataclass(frozen=True, slots=True)
class StyleBatch:
    """Samples of several styles in the order style, prompt, seed, with what they are judged by.

    Attributes:
        styles: The styles.
        references: Pictures (N,3,H,W) in [0,1] by style.
        quantiles: Their `set_quantiles` by style.
        subjects: What each sample should show, a list a style.
        oracles: What each sample should look like, where that is known.
        shown: References that the LoRA was made of, where they are not the style's own.
    """

    styles: Sequence[HeldOutStyle]
    references: Mapping[str, Tensor]
    quantiles: Mapping[str, Tensor]
    subjects: Sequence[Sequence[str]]
    oracles: Oracles | None = None
    shown: Mapping[str, Sequence[LabelledImage]] = field(default_factory=dict)

    @property
    def per_style(self) -> int:
        """Samples a style."""
        return len(self.subjects[0])

    def rows(self) -> Iterable[tuple[HeldOutStyle, slice]]:
        """Each style with its rows in the batch."""
        for position, style in enumerate(self.styles):
            yield style, slice(position * self.per_style, (position + 1) * self.per_style)


def measure(
    samples_BCHW: Tensor, batch: StyleBatch, reader: PromptReader, config: EvaluationConfig
) -> Values:
    """Metrics of samples in [0,1]; a part that an oracle does not have gives no value."""
    values: Values = {}
    if batch.oracles is not None:
        parts = part_distances(
            samples_BCHW, batch.oracles.images, batch.oracles.figure, batch.oracles.outline
        )
        for part, column in parts.items():
            _add(values, f"style_{part}", batch, column)
    _add(values, "failed", batch, [float(failed) for failed in failed_samples(samples_BCHW)])
    _add_quality(values, samples_BCHW, batch)
    for style, rows in batch.rows():
        references = batch.references[style.name]
        distances = reference_distances(samples_BCHW[rows], batch.quantiles[style.name])
        hits = copied(
            samples_BCHW[rows],
            references,
            max_hamming=config.copy_max_hamming,
            max_colour=config.copy_max_colour,
        )
        values.setdefault("style_references", {})[style.name] = distances
        values.setdefault("copied", {})[style.name] = [float(hit) for hit in hits]
    _add_reading(values, samples_BCHW, batch, reader, config)
    return values


def merge(parts: Iterable[Mapping[str, Mapping[str, Sequence[float]]]]) -> Values:
    """Values of several chunks, whose styles differ, as one."""
    merged: Values = {}
    for values in parts:
        for metric, by_style in values.items():
            for style, column in by_style.items():
                merged.setdefault(metric, {}).setdefault(style, []).extend(column)
    return merged


def leakage_metric(num_refs: int) -> str:
    """Share of samples that show the content of one of the first `num_refs` references."""
    return f"leakage_refs_{num_refs}"


def _add(values: Values, metric: str, batch: StyleBatch, column: Sequence[float | None]) -> None:
    by_style = values.setdefault(metric, {})
    for style, rows in batch.rows():
        by_style[style.name] = [value for value in column[rows] if value is not None]


def _add_quality(values: Values, samples_BCHW: Tensor, batch: StyleBatch) -> None:
    """Sharpness and contrast against the oracle, without one against the mean reference."""
    for name, function in (("sharpness_error", sharpness), ("contrast_error", contrast)):
        if batch.oracles is not None:
            expected = function(batch.oracles.images)
        else:
            expected = torch.cat(
                [
                    function(batch.references[style.name]).mean().expand(batch.per_style)
                    for style in batch.styles
                ]
            )
        _add(values, name, batch, log_ratio_errors(function(samples_BCHW), expected))


def _add_reading(
    values: Values,
    samples_BCHW: Tensor,
    batch: StyleBatch,
    reader: PromptReader,
    config: EvaluationConfig,
) -> None:
    candidates = [_candidates(style) for style in batch.styles for _ in range(batch.per_style)]
    answers = reader.read(samples_BCHW, candidates)
    for position, (style, rows) in enumerate(batch.rows()):
        asked, read = batch.subjects[position], answers[rows]
        values.setdefault("prompt_accuracy", {})[style.name] = [
            float(answer == subject) for answer, subject in zip(read, asked, strict=True)
        ]
        shown = [image.subject for image in batch.shown.get(style.name, style.references)]
        for num_refs in config.num_refs:
            leaked = set(shown[:num_refs])
            values.setdefault(leakage_metric(num_refs), {})[style.name] = [
                float(answer in leaked and answer != subject)
                for answer, subject in zip(read, asked, strict=True)
            ]


def _candidates(style: HeldOutStyle) -> list[Candidate]:
    """What a sample may show: any of the style's prompts, any content of references."""
    options = [Candidate(prompt.subject, prompt.prompt) for prompt in style.prompts]
    options += [
        Candidate(image.subject, image.prompt)
        for image in (*style.targets, *style.references, *style.wrong_references)
    ]
    return list({option.subject: option for option in options}.values())
