"""``i2l tiny-models`` and ``i2l ship-predictor``: the small models that ship with the package."""

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
    overrides: SetOption = None,
    dry_run: DryRunOption = False,
    debug: DebugOption = False,
) -> None:
    """Train the tiny backbone and the content classifier on the labelled grid; resumable."""
    from pydantic import ValidationError

    from jobs.backbone.run import BackboneConfig, run_backbone
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

    with ctx.ensure_object(Session).job():
        loaded = LoraPredictor.from_pretrained(predictor)
        loaded.half().save_pretrained(output)
    provenance = Path(predictor) / "provenance.json"
    if provenance.exists():
        (output / provenance.name).write_bytes(provenance.read_bytes())
    typer.echo(f"predictor: {output}")
