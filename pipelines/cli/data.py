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

# Each example is a paragraph of its own, or the help would join them to one.
_PACK_EXAMPLES = """[bold]Examples[/bold]

i2l pack ~/pictures --output shards

i2l pack ~/pictures --output s3://bucket/shards --set pack.num_workers=8

i2l pack by-artist/ --output shards --set pack.source_from_folder=true

i2l pack ~/pictures --output shards --set pack.caption_from_name=false
"""
_MINE_EXAMPLES = """[bold]Examples[/bold]

i2l mine --input shards --output pairs

i2l mine --input s3://bucket/shards --output s3://bucket/pairs

i2l mine --input 's3://bucket/laion-*/{00000..00127}.tar' --output pairs

i2l mine --input shards --output pairs --set mining.filters.min_aesthetic=5

i2l mine --input shards --output pairs --set 'mining.style_encoder={name: csd, path: /models/csd}'

A threshold that changes, and shards that are added, decode and embed no image again.
docs/mining.md is the guide.
"""


def add_commands(app: typer.Typer) -> None:
    """Add the commands of this file."""
    panel = "Data"
    app.command(
        rich_help_panel=panel,
        epilog="Example: i2l corpus --output grid --styles 50 --contents 10 --seed 3",
    )(corpus)
    app.command(rich_help_panel=panel, epilog=_PACK_EXAMPLES)(pack)
    app.command(rich_help_panel=panel, epilog=_MINE_EXAMPLES)(mine)


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
    """Pack a folder of images as WebDataset shards.

    photo.jpg takes its caption from photo.txt, else from "caption" in photo.json, else from the
    words of its name. Hidden files and links do not count. Finished shards are kept when the
    command is run again; a finished pack of an unchanged folder is left alone.
    """
    settings = read_recipe(recipe, overrides)
    config = require_part(settings.pack, "pack", recipe)
    if dry_run:
        print_settings(folder=folder, output=output, pack=config)
        return
    from jobs.corpus.pack import run_pack

    with ctx.ensure_object(Session).job() as progress:
        result = run_pack(config, folder, output, progress)
    how = " already there" if result.reused else ""
    typer.echo(f"{result.num_images:,} images in {result.num_shards:,} shards{how}: {output}")
    for reason, number in result.drops.items():
        names = [_shown(name) for name in result.examples[reason]]
        more = ", ..." if number > len(names) else ""
        typer.echo(f"left out, {reason}: {number:,} ({', '.join(names)}{more})")


def _shown(name: str, limit: int = 60) -> str:
    """A stranger's file name without what a terminal would obey, cut in its middle."""
    plain = "".join(c if c.isprintable() else "\ufffd" for c in name)
    return plain if len(plain) <= limit else f"{plain[: limit // 2]}…{plain[-limit // 2 :]}"


def mine(
    ctx: typer.Context,
    source: Annotated[
        str,
        typer.Option(
            "--input",
            metavar="URI",
            help="Folder or s3:// prefix of shards, one tar, or a pattern with {..}, * or **.",
        ),
    ],
    output: OutputOption,
    recipe: RecipeOption = DEFAULT_RECIPE,
    overrides: SetOption = None,
    dry_run: DryRunOption = False,
    debug: DebugOption = False,
) -> None:
    """Mine pairs of one style and different content from shards.

    Run it again after a kill: finished shards are not decoded again. It does nothing where
    nothing changed.
    """
    settings = read_recipe(recipe, overrides)
    if dry_run:
        print_settings(input=source, output=output, mining=settings.mining)
        return
    from jobs.mining.report import read_report
    from jobs.mining.run import run_mining
    from pipelines.cli.mining_summary import summary_lines

    with ctx.ensure_object(Session).job() as progress:
        result = run_mining(settings.mining, source, output, progress)
    if result.reused:
        typer.echo("finished before for this input and these settings, nothing to do")
    for line in summary_lines(read_report(result.report_uri)):
        typer.echo(line)
    typer.echo(f"pairs:  {result.index_uri}")
    typer.echo(f"report: {result.report_uri}")
