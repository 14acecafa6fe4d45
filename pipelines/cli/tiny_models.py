"""``i2l tiny-models`` and ``i2l ship-predictor``: the small models that ship with the package."""

import json
from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.options import DebugOption, DryRunOption, SetOption
from pipelines.cli.session import Session
from pipelines.cli.settings import print_settings


def add_commands(app: typer.Typer) -> None:
    """Add the commands of this file."""
    panel = "Development"
    app.command(
        name="ship-predictor",
        rich_help_panel=panel,
        epilog="Example: i2l ship-predictor --predictor i2l-workspace/stylegrid/training/predictor "
        "--output i2l_model/assets/tiny-predictor",
    )(ship_predictor)
    app.command(
        name="tiny-models",
        rich_help_panel=panel,
        epilog="Examples: i2l tiny-models --output tiny, "
        "i2l tiny-models --output trial --set transformer.steps=500",
    )(tiny_models)


def tiny_models(
    ctx: typer.Context,
    output: Annotated[
        Path, typer.Option("--output", metavar="FOLDER", help="Folder of models and checks.")
    ],
    encoder_only: Annotated[
        bool, typer.Option("--encoder-only", help="Train the reference encoder and stop.")
    ] = False,
    overrides: SetOption = None,
    dry_run: DryRunOption = False,
    debug: DebugOption = False,
) -> None:
    """Train reference encoder, content classifier and backbone on the labelled grid; resumable."""
    from pydantic import ValidationError

    from jobs.backbone.run import BackboneConfig, run_backbone, run_encoder
    from pipelines.overrides import apply_overrides, validation_problem

    defaults = BackboneConfig().model_dump(mode="json")
    try:
        config = BackboneConfig.model_validate(apply_overrides(defaults, overrides or ()))
    except ValidationError as error:
        raise validation_problem(error, BackboneConfig, "the command line") from None
    if dry_run:
        print_settings(output=str(output), tiny_models=config)
        return
    with ctx.ensure_object(Session).job() as progress:
        if encoder_only:
            typer.echo(f"encoder: {run_encoder(config, output, progress)}")
            return
        result = run_backbone(config, output, progress)
    typer.echo(f"images read rightly:  {result.accuracy_on_images:.1%}")
    typer.echo(f"samples read rightly: {result.accuracy_on_samples:.1%}")
    typer.echo(f"models and check:     {result.folder}")


def ship_predictor(
    ctx: typer.Context,
    predictor: Annotated[
        str, typer.Option("--predictor", metavar="FOLDER", help="Predictor folder of a training.")
    ],
    output: Annotated[Path, typer.Option("--output", metavar="FOLDER", help="Folder to write.")],
    debug: DebugOption = False,
) -> None:
    """Copy a predictor with half-precision weights, as the package ships it."""
    from i2l_model.predictor import LoraPredictor
    from jobs.predictor_folder import check_predictor
    from jobs.provenance import file_hash

    with ctx.ensure_object(Session).job():
        check_predictor(predictor, predictor)
        LoraPredictor.from_pretrained(predictor).half().save_pretrained(output)
        provenance = Path(predictor) / "provenance.json"
        if provenance.exists():
            origin = json.loads(provenance.read_bytes())
            origin["predictor_sha256"] = file_hash(str(output / "model.safetensors"))
            text = json.dumps(origin, indent=2, sort_keys=True) + "\n"
            (output / provenance.name).write_text(text)
    typer.echo(f"predictor: {output}")
