"""``i2l corpus``, ``i2l pack`` and ``i2l mine``: from images to pairs."""

from typing import Annotated

import typer

from pipelines.cli.options import (
    DEFAULT_RECIPE,
    PICTURES_RECIPE,
    DebugOption,
    DryRunOption,
    RecipeOption,
    SetOption,
)
from pipelines.cli.session import Session
from pipelines.cli.settings import print_settings, read_recipe, require_part

OutputOption = Annotated[
    str, typer.Option("--output", metavar="URI", help="Folder or s3:// prefix to write.")
]


def add_commands(app: typer.Typer) -> None:
    """Add the commands of this file."""
    panel = "Data"
    app.command(
        rich_help_panel=panel,
        epilog="Example: i2l corpus --output grid --styles 50 --contents 10 --seed 3",
    )(corpus)
    app.command(rich_help_panel=panel, epilog="Example: i2l pack ~/pictures --output shards")(pack)
    app.command(
        rich_help_panel=panel,
        epilog="Examples: i2l mine --input grid --output pairs, "
        "i2l mine --input s3://bucket/shards --output s3://bucket/pairs "
        "--set mining.seed=1",
    )(mine)


def corpus(
    ctx: typer.Context,
    output: OutputOption,
    styles: Annotated[int | None, typer.Option(min=1, help="Number of styles.")] = None,
    contents: Annotated[int | None, typer.Option(min=1, help="Number of contents.")] = None,
    size: Annotated[int | None, typer.Option(min=32, help="Side of an image in pixels.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of styles and order.")] = None,
    recipe: RecipeOption = DEFAULT_RECIPE,
    overrides: SetOption = None,
    dry_run: DryRunOption = False,
    debug: DebugOption = False,
) -> None:
    """Draw a labelled grid of styles and contents as WebDataset shards."""
    flags = {"num_styles": styles, "num_contents": contents, "size": size, "seed": seed}
    settings = read_recipe(
        recipe, overrides, {f"corpus.{name}": value for name, value in flags.items()}
    )
    config = require_part(settings.corpus, "corpus", recipe)
    if dry_run:
        print_settings(output=output, corpus=config)
        return
    from jobs.corpus.stylegrid import write_corpus

    with ctx.ensure_object(Session).job() as progress:
        result = write_corpus(config, output, progress)
    how = "already there" if result.reused else "written"
    typer.echo(f"{result.num_images} images in {result.num_shards} shards {how}: {output}")


def pack(
    ctx: typer.Context,
    folder: Annotated[
        str, typer.Argument(help="Folder of images with .txt or .json files beside them.")
    ],
    output: OutputOption,
    recipe: RecipeOption = PICTURES_RECIPE,
    overrides: SetOption = None,
    dry_run: DryRunOption = False,
    debug: DebugOption = False,
) -> None:
    """Pack a folder of images as WebDataset shards."""
    settings = read_recipe(recipe, overrides)
    config = require_part(settings.pack, "pack", recipe)
    if dry_run:
        print_settings(folder=folder, output=output, pack=config)
        return
    from jobs.corpus.pack import run_pack

    with ctx.ensure_object(Session).job() as progress:
        result = run_pack(config, folder, output, progress)
    typer.echo(f"{result.num_images} images in {result.num_shards} shards: {output}")
    for reason, number in result.drops.items():
        typer.echo(f"left out, {reason}: {number} ({', '.join(result.examples[reason])})")


def mine(
    ctx: typer.Context,
    source: Annotated[
        str,
        typer.Option(
            "--input", metavar="URI", help="Folder of shards, one tar, or a {..} pattern."
        ),
    ],
    output: OutputOption,
    recipe: RecipeOption = DEFAULT_RECIPE,
    overrides: SetOption = None,
    dry_run: DryRunOption = False,
    debug: DebugOption = False,
) -> None:
    """Mine pairs of one style and different content from shards."""
    settings = read_recipe(recipe, overrides)
    if dry_run:
        print_settings(input=source, output=output, mining=settings.mining)
        return
    from jobs.mining.run import run_mining

    with ctx.ensure_object(Session).job() as progress:
        result = run_mining(settings.mining, source, output, progress)
    typer.echo(f"pairs:  {result.index_uri}")
    typer.echo(f"report: {result.report_uri}")
