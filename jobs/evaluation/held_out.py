"""Chooses held-out styles with their references, prompts, targets and seeds.

The choice depends on the pairs and the configuration only, so that two predictors are judged on
the same noise, and `content_hash` says whether they were.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from i2l_model.errors import InputError
from jobs.corpus.captions import plain_caption
from jobs.corpus.contents import CONTENTS
from jobs.evaluation.config import EvaluationConfig
from jobs.evaluation.held_out_images import (
    GridLabel,
    LabelledImage,
    TestImages,
    read_test_images,
    stable_order,
)
from jobs.provenance import bytes_hash, json_hash

logger = logging.getLogger(__name__)

# What decides which pixels a condition samples; the rest of the configuration may differ.
SAMPLING_FIELDS = (
    "seed",
    "num_prompts",
    "held_out_contents",
    "num_seeds",
    "num_inference_steps",
    "guidance_scale",
    "guidance",
    "image_size",
    "prompt_reader",
    "loss_min_sigma",
    "loss_num_targets",
)


@dataclass(frozen=True, slots=True)
class HeldOutPrompt:
    """A prompt drawn in a held-out style. `grid` names the oracle image where one exists."""

    prompt: str
    subject: str
    grid: GridLabel | None
    seeds: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class HeldOutStyle:
    """One style: references of contents that no prompt asks for, prompts, real targets.

    `wrong_references` are those of another style, of as many contents that no prompt asks for
    as that style has.
    """

    name: str
    references: tuple[LabelledImage, ...]
    wrong_references: tuple[LabelledImage, ...]
    prompts: tuple[HeldOutPrompt, ...]
    targets: tuple[LabelledImage, ...]


@dataclass(frozen=True, slots=True)
class HeldOutSet:
    """All styles of an evaluation.

    Attributes:
        num_short_styles: Styles with fewer references than the largest count asks for.
    """

    styles: tuple[HeldOutStyle, ...]
    has_oracle: bool
    content_hash: str
    num_shared_keys: int
    num_seen_styles: int
    num_short_styles: int

    @property
    def subjects(self) -> frozenset[str]:
        """Everything that prompts ask for or references show."""
        prompts = {prompt.subject for style in self.styles for prompt in style.prompts}
        shown = {image.subject for style in self.styles for image in style.references}
        return frozenset(prompts | shown)


@dataclass(frozen=True, slots=True)
class _Division:
    """A style's images, divided: references here, contents to prompt for there."""

    name: str
    references: tuple[LabelledImage, ...]
    others: tuple[LabelledImage, ...]


def choose_held_out(pairs_uri: str, config: EvaluationConfig) -> HeldOutSet:
    """Choose styles of the test split.

    Raises:
        InputError: If fewer than two test styles have two different contents.
    """
    images = read_test_images(
        pairs_uri,
        num_styles=config.num_styles,
        max_pairs_per_style=config.max_pairs_per_style,
        seed=config.seed,
    )
    divisions = _divide(images, config)
    if len(divisions) < 2:
        raise InputError(
            "--pairs",
            pairs_uri,
            f"has {len(divisions)} test styles with two contents that training did not see, "
            "the evaluation needs at least 2",
            "mine more pairs or raise the test share",
        )
    if len(divisions) < config.num_styles:
        logger.warning(
            "num_styles (%d) is more than the %d test styles there are; all are taken",
            config.num_styles,
            len(divisions),
        )
    divisions = divisions[: config.num_styles]
    styles = tuple(_complete(division, divisions, config) for division in divisions)
    return HeldOutSet(
        styles=styles,
        has_oracle=all(prompt.grid for style in styles for prompt in style.prompts),
        content_hash=_content_hash(styles, config),
        num_shared_keys=images.num_shared_keys,
        num_seen_styles=images.num_seen_styles,
        num_short_styles=sum(_is_short(division, config) for division in divisions),
    )


def _divide(images: TestImages, config: EvaluationConfig) -> list[_Division]:
    names = sorted(images.styles, key=lambda name: stable_order(config.seed, "style", name))
    divisions = []
    for name in names:
        by_subject: dict[str, LabelledImage] = {}
        for image in sorted(
            images.styles[name], key=lambda image: stable_order(config.seed, name, image.key)
        ):
            by_subject.setdefault(image.subject, image)
        distinct = tuple(by_subject.values())
        num_refs = min(config.max_refs, len(distinct) - 1)
        if num_refs >= 1:
            divisions.append(_Division(name, distinct[:num_refs], distinct[num_refs:]))
    # Where there is a choice, no condition gets fewer references than its name says.
    return sorted(divisions, key=lambda division: _is_short(division, config))


def _is_short(division: _Division, config: EvaluationConfig) -> bool:
    return len(division.references) < config.max_refs


def _complete(
    division: _Division, divisions: Sequence[_Division], config: EvaluationConfig
) -> HeldOutStyle:
    prompts = _prompts(division, divisions, config)
    wanted = config.loss_num_targets
    return HeldOutStyle(
        name=division.name,
        references=division.references,
        wrong_references=_wrong_references(division, divisions, prompts),
        prompts=prompts,
        # Styles of few contents repeat a target; its noise differs.
        targets=(division.others * wanted)[:wanted],
    )


def _prompts(
    division: _Division, divisions: Sequence[_Division], config: EvaluationConfig
) -> tuple[HeldOutPrompt, ...]:
    """Held-out contents, then what the style's own images show, then what those of others do."""
    label = division.references[0].label
    chosen = _unseen_contents(division, config) if label else {}
    shown = {image.subject for image in division.references}
    pool = [image for other in divisions for image in (*other.references, *other.others)]
    pool.sort(key=lambda image: stable_order(config.seed, division.name, "prompt", image.key))
    for image in (*division.others, *pool):
        if image.subject not in shown and len(chosen) < config.num_prompts:
            chosen.setdefault(image.subject, image.prompt)
    if not chosen:
        raise InputError("--pairs", division.name, "leaves no prompt", "mine more contents")
    # Every style has equally many prompts, so that one batch serves several LoRAs.
    cycle = (list(chosen.items()) * config.num_prompts)[: config.num_prompts]
    return tuple(
        HeldOutPrompt(
            prompt=prompt,
            subject=subject,
            grid=GridLabel(label.seed, label.style_id, subject)
            if label and subject in CONTENTS
            else None,
            seeds=tuple(
                _noise_seed(config.seed, division.name, position, repeat)
                for repeat in range(config.num_seeds)
            ),
        )
        for position, (subject, prompt) in enumerate(cycle)
    )


def _unseen_contents(division: _Division, config: EvaluationConfig) -> dict[str, str]:
    """Prompts by content for up to half of the style's prompts."""
    unknown = [name for name in config.held_out_contents if name not in CONTENTS]
    if unknown:
        raise InputError(
            "evaluation.held_out_contents", unknown[0], "is no content", "use a stylegrid content"
        )
    names = sorted(
        config.held_out_contents, key=lambda name: stable_order(config.seed, division.name, name)
    )
    return {name: plain_caption(name) for name in names[: config.num_prompts // 2]}


def _wrong_references(
    division: _Division, divisions: Sequence[_Division], prompts: Sequence[HeldOutPrompt]
) -> tuple[LabelledImage, ...]:
    """References of the style half a round further on, none of them of a prompted content."""
    asked = {prompt.subject for prompt in prompts}
    start = [other.name for other in divisions].index(division.name) + max(1, len(divisions) // 2)
    best: tuple[LabelledImage, ...] = ()
    for step in range(len(divisions)):
        other = divisions[(start + step) % len(divisions)]
        if other.name == division.name:
            continue
        unasked = [i for i in (*other.references, *other.others) if i.subject not in asked]
        if len(unasked) >= len(division.references):
            return tuple(unasked[: len(division.references)])
        best = max(best, tuple(unasked), key=len)
    # All other styles show only prompted contents: wrong references of those are still wrong.
    if best:
        return best
    return divisions[start % len(divisions)].references


def _noise_seed(seed: int, style: str, prompt: int, repeat: int) -> int:
    return int(stable_order(seed, style, str(prompt), str(repeat))[:8], 16) & 0x7FFFFFFF


def _content_hash(styles: Sequence[HeldOutStyle], config: EvaluationConfig) -> str:
    def pictures(images: Sequence[LabelledImage]) -> list[str]:
        return [bytes_hash(image.data) for image in images]

    chosen = [
        {
            "style": style.name,
            "references": pictures(style.references),
            "wrong_references": pictures(style.wrong_references),
            "targets": pictures(style.targets),
            "prompts": [(p.prompt, p.subject, p.seeds) for p in style.prompts],
        }
        for style in styles
    ]
    sampling = config.model_dump(mode="json", include=set(SAMPLING_FIELDS))
    return json_hash({"styles": chosen, "sampling": sampling})
