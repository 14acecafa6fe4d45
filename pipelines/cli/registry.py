"""``i2l register``, ``promote``, ``rollback`` and ``versions``: the predictor registry."""

from pathlib import Path
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
from pipelines.cli.session import Session
from pipelines.cli.settings import print_settings, read_recipe, tracking_of

if TYPE_CHECKING:
    from jobs.registry.versions import ModelRegistry, PredictorVersion
    from pipelines.recipe import Recipe

ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="NAME",
        help="Registered model.",
        show_default="the only one there is",
    ),
]


def add_commands(app: typer.Typer) -> None:
    """Add the commands of this file."""
    panel = "Registry"
    app.command(
        rich_help_panel=panel,
        epilog="Example: i2l register --predictor training/predictor --report report/report.json",
    )(register)
    app.command(rich_help_panel=panel, epilog="Examples: i2l promote, i2l promote --version 3")(
        promote
    )
    app.command(rich_help_panel=panel, epilog="Example: i2l rollback")(rollback)
    app.command(
        rich_help_panel=panel, epilog="Example: i2l versions --workspace i2l-workspace/quickstart"
    )(versions)


def register(
    ctx: typer.Context,
    predictor: Annotated[
        str, typer.Option("--predictor", metavar="URI", help="Predictor folder of i2l train.")
    ],
    report: Annotated[
        str, typer.Option("--report", metavar="URI", help="report.json of i2l evaluate.")
    ],
    samples: Annotated[
        str | None,
        typer.Option(
            "--samples",
            metavar="URI",
            help="Folder with loras/ and images/.",
            show_default="samples beside the report",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            metavar="NAME",
            help="Its name starts with i2l-.",
            show_default="i2l-<backbone>",
        ),
    ] = None,
    workspace: WorkspaceOption = None,
    recipe: RecipeOption = DEFAULT_RECIPE,
    overrides: SetOption = None,
    dry_run: DryRunOption = False,
    debug: DebugOption = False,
) -> None:
    """Register a predictor with its report, sample LoRAs and images as a new version."""
    settings = _resolved(recipe, overrides, workspace)
    if dry_run:
        print_settings(
            predictor=predictor,
            report=report,
            samples=samples,
            model=model,
            tracking=settings.tracking,
        )
        return
    from jobs.registry.register import register_version
    from pipelines.predictors import local_predictor

    with (
        ctx.ensure_object(Session).job(),
        local_predictor(predictor, settings.tracking) as folder,
    ):
        version = register_version(
            settings.tracking, str(folder), report, samples_uri=samples, name=model
        )
    typer.echo(f"{version.uri} ({', '.join(version.aliases)})")


def promote(
    ctx: typer.Context,
    version: Annotated[
        int | None, typer.Option(min=1, help="Number.", show_default="the candidate")
    ] = None,
    model: ModelOption = None,
    workspace: WorkspaceOption = None,
    recipe: RecipeOption = DEFAULT_RECIPE,
    overrides: SetOption = None,
    dry_run: DryRunOption = False,
    debug: DebugOption = False,
) -> None:
    """Make a version champion if the gate lets it pass; else exit with status 3."""
    settings = _resolved(recipe, overrides, workspace)
    if dry_run:
        print_settings(version=version, model=model, gate=settings.gate, tracking=settings.tracking)
        return
    from pipelines.gate import judge, promote_judged

    with ctx.ensure_object(Session).job():
        registry, name = _open(settings, model)
        champion = promote_judged(registry, judge(registry, name, version, settings.gate))
    typer.echo(f"champion: {champion.uri}")


def rollback(
    ctx: typer.Context,
    model: ModelOption = None,
    workspace: WorkspaceOption = None,
    recipe: RecipeOption = DEFAULT_RECIPE,
    overrides: SetOption = None,
    dry_run: DryRunOption = False,
    debug: DebugOption = False,
) -> None:
    """Make the champion before the present one champion again."""
    settings = _resolved(recipe, overrides, workspace)
    if dry_run:
        print_settings(model=model, tracking=settings.tracking)
        return
    from jobs.registry.promotion import rollback as move_back

    with ctx.ensure_object(Session).job():
        champion = move_back(*_open(settings, model))
    typer.echo(f"champion: {champion.uri}")


def versions(
    ctx: typer.Context,
    model: Annotated[
        str | None,
        typer.Option("--model", metavar="NAME", help="Registered model.", show_default="all"),
    ] = None,
    workspace: WorkspaceOption = None,
    recipe: RecipeOption = DEFAULT_RECIPE,
    overrides: SetOption = None,
    dry_run: DryRunOption = False,
    debug: DebugOption = False,
) -> None:
    """List the registered versions, newest first."""
    settings = _resolved(recipe, overrides, workspace)
    if dry_run:
        print_settings(model=model, tracking=settings.tracking)
        return
    from jobs.registry.versions import ModelRegistry
    from pipelines.predictors import require_registry

    with ctx.ensure_object(Session).job():
        require_registry(settings.tracking)
        found = ModelRegistry(settings.tracking).list_versions(model)
    _print_table(found)


def _resolved(recipe: str, overrides: list[str] | None, workspace: Path | None) -> "Recipe":
    """Load the recipe, with the place of the registry filled in."""
    settings = read_recipe(recipe, overrides)
    tracking = tracking_of(settings, recipe, workspace)
    return settings.model_copy(update={"tracking": tracking})


def _open(settings: "Recipe", model: str | None) -> tuple["ModelRegistry", str]:
    """Open the registry and choose the model; without a name there must be exactly one."""
    from jobs.registry.versions import ModelRegistry
    from pipelines.predictors import require_registry

    require_registry(settings.tracking)
    registry = ModelRegistry(settings.tracking)
    if model is not None:
        return registry, model
    names = registry.names()
    if len(names) != 1:
        known = ", ".join(names) or "none yet"
        raise InputError("--model", "missing", "is ambiguous", f"name one of: {known}")
    return registry, names[0]


def _print_table(found: "list[PredictorVersion]") -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("version", "aliases", "registered", "step", "gate", "uri", box=None)
    for version in found:
        created = version.created_at
        table.add_row(
            str(version.version),
            ", ".join(version.aliases),
            created.strftime("%Y-%m-%d %H:%M") if created else "",
            version.tags.get("step", ""),
            version.tags.get("gate", ""),
            version.uri,
        )
    Console().print(table)
