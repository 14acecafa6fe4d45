"""``i2l demo``: the page to try a predictor on."""

from typing import Annotated

import typer

from pipelines.cli.images import PredictorOption
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
from pipelines.interrupts import Interrupts


def add_commands(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command(
        rich_help_panel="Use",
        epilog="Examples: i2l demo, i2l demo --predictor models:/i2l-tiny-zimage@champion "
        "--port 8000",
    )(demo)


def demo(
    ctx: typer.Context,
    predictor: PredictorOption = None,
    backbone: Annotated[
        str | None,
        typer.Option(
            "--backbone",
            metavar="NAME|FOLDER",
            help="Text-to-image model.",
            show_default="the one the predictor was made for",
        ),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 opens it to the network.")
    ] = "127.0.0.1",
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, show_default="the first free one from 7860")
    ] = None,
    workspace: WorkspaceOption = None,
    recipe: RecipeOption = DEFAULT_RECIPE,
    overrides: SetOption = None,
    dry_run: DryRunOption = False,
    debug: DebugOption = False,
) -> None:
    """Open a page to drop images on: the picture in their style, without, and the LoRA file."""
    tracking = tracking_of(read_recipe(recipe, overrides), recipe, workspace)
    if dry_run:
        print_settings(
            predictor=predictor, backbone=backbone, host=host, port=port, tracking=tracking
        )
        return
    with ctx.ensure_object(Session).job():
        from pipelines.demo import Demo, build_page, check_address, serve
        from pipelines.predictors import SHIPPED_PREDICTOR, local_predictor

        check_address(host, port)
        with local_predictor(predictor, tracking) as folder:
            page = build_page(Demo(folder, predictor or SHIPPED_PREDICTOR, backbone))
        address = serve(page, host, port)
    with Interrupts().raised():
        typer.echo(f"open {address} in a browser; Ctrl-C ends it")
        page.block_thread()  # until a signal comes
