"""``i2l run``: the whole workflow on this machine."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.cli.options import DEFAULT_RECIPE, DebugOption, DryRunOption, RecipeOption, SetOption
from pipelines.cli.session import Session
from pipelines.cli.settings import print_settings, read_recipe, workspace_of

if TYPE_CHECKING:
    from pipelines.embedded import WorkflowResult
    from pipelines.workspace import Workspace


def add_commands(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command(
        rich_help_panel="Workflow",
        epilog="Examples: i2l run, i2l run --recipe pictures --set pack_folder=~/pictures, "
        "i2l run --set training.steps=200 --workspace trial",
    )(run)


def run(
    ctx: typer.Context,
    recipe: RecipeOption = DEFAULT_RECIPE,
    workspace: Annotated[
        Path | None,
        typer.Option(
            "--workspace",
            metavar="FOLDER",
            help="Where everything is written.",
            show_default="i2l-workspace/RECIPE",
        ),
    ] = None,
    overrides: SetOption = None,
    dry_run: DryRunOption = False,
    debug: DebugOption = False,
) -> None:
    """Run the whole workflow: images, pairs, predictor, report, version, champion.

    The same command continues a run that was stopped, and does nothing when all is done.
    """
    settings = read_recipe(recipe, overrides)
    place = workspace_of(recipe, workspace)
    if dry_run:
        print_settings(workspace=str(place.root), **dict(settings))
        return
    place.create()
    with ctx.ensure_object(Session).logged(place.log_file) as terminal:
        from rich.console import Console

        from pipelines.display import ConsoleDisplay
        from pipelines.embedded import run_workflow

        display = ConsoleDisplay(Console(file=terminal))
        result = run_workflow(settings, place, display, display)
    _say_where_to_look(result, place)


def _say_where_to_look(result: "WorkflowResult", place: "Workspace") -> None:
    champion = result.outputs["champion"]
    name = f"models:/{champion['model']}@champion"
    if result.did_nothing:
        typer.echo("Nothing to do: every step is done with these settings.")
    typer.echo(f"Results:  {place.index_page}")
    typer.echo(f"Champion: {champion['content']}")
    typer.echo("Try:")
    typer.echo(
        f'  i2l generate --prompt "a house" --ref IMAGE --output pictures '
        f"--predictor {name} --workspace {place.root}"
    )
