"""``i2l predict`` and ``i2l generate``: from reference images to LoRA files and pictures."""

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from i2l_model.errors import InputError
from pipelines.cli.options import (
    DEFAULT_RECIPE,
    DebugOption,
    DryRunOption,
    RecipeOption,
    SetOption,
    WorkspaceOption,
)
from pipelines.cli.session import Session
from pipelines.cli.settings import print_settings, read_recipe, tracking_of

PredictorOption = Annotated[
    str | None,
    typer.Option(
        "--predictor",
        metavar="URI",
        help="Predictor folder, s3:// URI or models:/NAME@ALIAS.",
        show_default="the shipped tiny predictor",
    ),
]
StrengthOption = Annotated[
    float, typer.Option(help="Factor on the style; 0 is none, 1 as predicted.")
]
WeightsOption = Annotated[
    list[float] | None,
    typer.Option("--weights", metavar="X...", help="How much each reference counts, in order."),
]


class LoraFileFormat(StrEnum):
    """Key names of the written file, or of the adapter in a PEFT folder."""

    DIFFUSERS = "diffusers"
    PEFT = "peft"
    COMFYUI = "comfyui"


class NegativeBranch(StrEnum):
    """The LoRA of the negative branch, see docs/guidance.md."""

    POSITIVE_ONLY = "positive_only"
    NEUTRAL_NEGATIVE = "neutral_negative"
    SYMMETRIC = "symmetric"


def add_commands(app: typer.Typer) -> None:
    """Add the commands of this file."""
    panel = "Use"
    app.command(
        rich_help_panel=panel,
        epilog="Examples: i2l predict a.png b.png --output style.safetensors, "
        "i2l predict a.png --predictor models:/i2l-tiny-zimage@champion --output style.safetensors "
        "--format comfyui --strength 0.8, i2l predict styles/* --output loras",
    )(predict)
    app.command(
        rich_help_panel=panel,
        epilog='Examples: i2l generate --prompt "a house" --ref a.png b.png --output pictures, '
        'i2l generate --prompt "a cat" --lora style.safetensors --output pictures --seed 7',
    )(generate)


def predict(
    ctx: typer.Context,
    images: Annotated[
        list[str],
        typer.Argument(help="Reference images of one style, or a folder of them for each style."),
    ],
    output: Annotated[
        str,
        typer.Option(
            "--output",
            metavar="FILE.safetensors|FOLDER",
            help="LoRA file to write; for folders of styles a folder, in which each LoRA has the "
            "name of its style's folder. With --format peft a FOLDER is a PEFT adapter.",
        ),
    ],
    predictor: PredictorOption = None,
    file_format: Annotated[
        LoraFileFormat, typer.Option("--format", help="Who will load it; see docs/lora.md.")
    ] = LoraFileFormat.DIFFUSERS,
    strength: StrengthOption = 1.0,
    weights: WeightsOption = None,
    workspace: WorkspaceOption = None,
    recipe: RecipeOption = DEFAULT_RECIPE,
    overrides: SetOption = None,
    dry_run: DryRunOption = False,
    debug: DebugOption = False,
) -> None:
    """Predict a style LoRA from images in one forward pass, or one for each of many folders."""
    tracking = tracking_of(read_recipe(recipe, overrides), recipe, workspace)
    if dry_run:
        print_settings(
            images=images,
            output=output,
            predictor=predictor,
            format=file_format.value,
            strength=strength,
            weights=weights,
            tracking=tracking,
        )
        return
    from pipelines.prediction import write_loras
    from pipelines.predictors import SHIPPED_PREDICTOR, local_predictor
    from pipelines.style_references import styles_of

    styles = styles_of(images, _local(output), weights, file_format.value)
    with (
        ctx.ensure_object(Session).job() as progress,
        local_predictor(predictor, tracking) as folder,
    ):
        written = write_loras(
            folder,
            styles,
            name=predictor or SHIPPED_PREDICTOR,
            file_format=file_format.value,
            strength=strength,
            progress=progress,
        )
    for file, prediction in written.items():
        typer.echo(f"{file}: rank {prediction.factors.rank} LoRA for {prediction.backbone}")


def generate(
    ctx: typer.Context,
    prompts: Annotated[
        list[str], typer.Option("--prompt", metavar="TEXT...", help="What to draw. Repeatable.")
    ],
    output: Annotated[
        str, typer.Option("--output", metavar="FOLDER", help="Folder for the pictures.")
    ],
    refs: Annotated[
        list[str] | None,
        typer.Option("--ref", metavar="IMAGE...|FOLDER", help="Reference images of the style."),
    ] = None,
    lora: Annotated[
        str | None, typer.Option("--lora", metavar="FILE", help="LoRA file instead of --ref.")
    ] = None,
    predictor: PredictorOption = None,
    backbone: Annotated[
        str | None,
        typer.Option(
            "--backbone",
            metavar="NAME|FOLDER",
            help="Text-to-image model.",
            show_default="the one the predictor or the LoRA was made for",
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, max=2**63 - 1, help="Seed of the starting noise.")
    ] = 0,
    steps: Annotated[int, typer.Option(min=1, help="Sampling steps.")] = 20,
    guidance: Annotated[
        float, typer.Option(min=1.0, help="Classifier-free guidance scale; 1 is off.")
    ] = 1.0,
    negative: Annotated[
        NegativeBranch,
        typer.Option(
            help="What the other branch of guidance carries: no LoRA, the one of grey references "
            "(needs --ref), or the same."
        ),
    ] = NegativeBranch.POSITIVE_ONLY,
    strength: StrengthOption = 1.0,
    weights: WeightsOption = None,
    workspace: WorkspaceOption = None,
    recipe: RecipeOption = DEFAULT_RECIPE,
    overrides: SetOption = None,
    dry_run: DryRunOption = False,
    debug: DebugOption = False,
) -> None:
    """Draw prompts in the style of reference images or of a LoRA file."""
    _check_style(refs, lora, {"--predictor": predictor, "--weights": weights}, negative)
    tracking = tracking_of(read_recipe(recipe, overrides), recipe, workspace)
    if dry_run:
        print_settings(
            prompts=prompts,
            output=output,
            refs=refs,
            lora=lora,
            predictor=predictor,
            backbone=backbone,
            seed=seed,
            steps=steps,
            guidance=guidance,
            negative=negative.value,
            strength=strength,
            weights=weights,
            tracking=tracking,
        )
        return
    from pipelines.devices import load_for_style
    from pipelines.drawing import Drawing, draw
    from pipelines.prediction import predict_style, read_lora
    from pipelines.predictors import local_predictor
    from pipelines.style_references import read_references

    folder = _local(output)
    drawing = Drawing(tuple(prompts), seed, steps, guidance, negative.value)
    with ctx.ensure_object(Session).job():
        references = read_references(refs or [], weights)
        if lora is not None:
            style, neutral = read_lora(lora, strength=strength), None
        else:
            neutral_too = negative is NegativeBranch.NEUTRAL_NEGATIVE
            with local_predictor(predictor, tracking) as found:
                style, neutral = predict_style(
                    found, references, strength=strength, neutral_too=neutral_too
                )
        loaded = load_for_style(backbone, style.backbone, "LoRA" if lora else "predictor")
        files = draw(drawing, loaded, style.factors, neutral, references.images, folder)
    for file in files:
        typer.echo(file)


def _local(output: str) -> Path:
    """The place behind ``--output``; these commands write to this machine alone."""
    from jobs import storage

    if storage.is_s3(output):
        fix = "name a local one, then copy it"
        raise InputError("--output", output, "is no local file or folder", fix)
    return storage.local_path(output)


def _check_style(
    refs: list[str] | None,
    lora: str | None,
    for_refs: Mapping[str, object],
    negative: NegativeBranch,
) -> None:
    """Refuse anything but one source of the style, and options that belong to the other one."""
    if bool(refs) == bool(lora):
        raise InputError(
            "--ref, --lora", "both" if refs else "neither", "is ambiguous", "give one of the two"
        )
    if lora is None:
        return
    for name, value in for_refs.items():
        if value is not None:
            raise InputError(name, value, "does not go with --lora", f"leave {name} or --lora out")
    if negative is NegativeBranch.NEUTRAL_NEGATIVE:
        problem = "needs the predictor's LoRA of grey references"
        raise InputError("--negative", negative.value, problem, "give --ref instead of --lora")
