"""``i2l model-info``: sizes and memory of a predictor."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

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
from pipelines.cli.settings import print_settings, read_recipe, tracking_of

if TYPE_CHECKING:
    from pipelines.model_info import ModelInfo


def add_commands(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command(
        "model-info",
        rich_help_panel="Use",
        epilog="Examples: i2l model-info, i2l model-info --backbone z-image, "
        "i2l model-info --backbone flux.2-dev --architecture 1 --json, "
        "i2l model-info --predictor models:/i2l-tiny-zimage@champion",
    )(show_model_info)


def show_model_info(
    backbone: Annotated[
        str | None,
        typer.Option(
            "--backbone",
            metavar="NAME",
            help="Released backbone, e.g. z-image, flux.2-klein-base-4b or hidream-o1: the "
            "full-size predictor for it. No weights are needed.",
        ),
    ] = None,
    predictor: Annotated[
        str | None,
        typer.Option(
            "--predictor",
            metavar="URI",
            help="Predictor folder, s3:// URI or models:/NAME@ALIAS.",
            show_default="the shipped tiny predictor",
        ),
    ] = None,
    architecture: Annotated[
        int | None,
        typer.Option(
            min=1, max=2, help="With --backbone: version of the predictor.", show_default="2"
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    workspace: WorkspaceOption = None,
    recipe: RecipeOption = DEFAULT_RECIPE,
    overrides: SetOption = None,
    dry_run: DryRunOption = False,
    debug: DebugOption = False,
) -> None:
    """Print parameters, LoRA size and memory of a predictor."""
    if backbone is not None and predictor is not None:
        raise InputError("--backbone", backbone, "does not go with --predictor", "leave one out")
    if architecture is not None and backbone is None:
        raise InputError("--architecture", architecture, "needs --backbone", "give both or neither")
    settings = read_recipe(recipe, overrides)
    tracking = tracking_of(settings, recipe, workspace)
    if dry_run:
        print_settings(
            backbone=backbone, predictor=predictor, architecture=architecture, tracking=tracking
        )
        return
    from i2l_model.predictor import LoraPredictor
    from pipelines.model_info import model_info
    from pipelines.predictors import local_predictor

    if backbone is not None:
        from i2l_model.backbones.released import released
        from i2l_model.predictor_sizes import full_size_config, on_meta

        transformer = released(backbone).transformer()
        config = full_size_config(backbone, 1 if architecture == 1 else 2)
        count = sum(weight.numel() for weight in transformer.parameters())
        info = model_info(on_meta(config), count)
    else:
        with local_predictor(predictor, tracking) as folder:
            info = model_info(LoraPredictor.from_pretrained(folder))
    typer.echo(json.dumps(asdict(info), indent=2) if as_json else _as_text(info))


def _as_text(info: "ModelInfo") -> str:
    lines = [f"predictor version {info.version} for {info.backbone}"]
    total = sum(info.num_parameters.values())
    lines += _table("parameters", {**info.num_parameters, "total": total}, "{:,}")
    lines += _table("of them trained", {"weights": info.num_trained}, "{:,}")
    if info.num_backbone_parameters is not None:
        lines += _table("backbone", {"transformer": info.num_backbone_parameters}, "{:,}")
    counts = {
        "layers": info.num_targets,
        "queries": info.num_queries,
        "rank": info.lora_rank,
        "parameters": info.lora_parameters,
        **{f"file bytes, {dtype}": size for dtype, size in info.lora_bytes.items()},
    }
    lines += _table("LoRA of one reference", counts, "{:,}")
    shown = {**info.infer_bytes, "total": sum(info.infer_bytes.values())}
    gib = {name: size / 2**30 for name, size in shown.items()}
    lines += _table("memory to infer, GiB", gib, "{:,.3f}")
    without = "the backbone's activations"
    if info.num_backbone_parameters is None:
        without = "the backbone"
    lines.append(f"memory is without {without}, of 4 references a LoRA")
    return "\n".join([*lines, "i2l train --dry-run estimates the memory to train"])


def _table(title: str, values: dict[str, int] | dict[str, float], form: str) -> list[str]:
    return [f"{title}:", *(f"  {name:44s} {form.format(x):>18s}" for name, x in values.items())]
