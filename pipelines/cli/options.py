"""Options that every command has."""

from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.session import Session

DEFAULT_RECIPE = "quickstart"
PICTURES_RECIPE = "pictures"


def _remember_debug(ctx: typer.Context, value: bool) -> bool:
    if value:
        ctx.ensure_object(Session).debug = True
    return value


RecipeOption = Annotated[
    str,
    typer.Option(
        "--recipe",
        metavar="NAME|FILE",
        help="Settings: a shipped recipe (quickstart, stylegrid, pictures) or a YAML file.",
        rich_help_panel="Settings",
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change one setting, e.g. --set training.steps=200. Repeatable.",
        rich_help_panel="Settings",
    ),
]
DryRunOption = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        help="Print the resolved settings as YAML and stop.",
        rich_help_panel="Settings",
    ),
]
DebugOption = Annotated[
    bool,
    typer.Option(
        "--debug",
        help="Log more, and print the traceback of a failure.",
        rich_help_panel="Settings",
        callback=_remember_debug,
        is_eager=True,
    ),
]
WorkspaceOption = Annotated[
    Path | None,
    typer.Option(
        "--workspace",
        metavar="FOLDER",
        help="Folder of i2l run, which holds the registry unless tracking.uri names a server.",
        show_default="i2l-workspace/RECIPE",
    ),
]
