"""``i2l train`` and ``i2l evaluate``: from pairs to a judged predictor."""

from typing import Annotated

import typer

from i2l_model.errors import InputError
from jobs.training.config import TrainingConfig
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

PairsOption = Annotated[
    str, typer.Option("--pairs", metavar="URI", help="Pairs that i2l mine wrote.")
]
OutputOption = Annotated[
    str, typer.Option("--output", metavar="URI", help="Folder or s3:// prefix to write.")
]


def add_commands(app: typer.Typer) -> None:
    """Add the commands of this file."""
    panel = "Predictor"
    app.command(
        rich_help_panel=panel,
        epilog="Example: i2l train --pairs pairs --output training "
        "--set training.steps=200 --set training.num_workers=1",
    )(train)
    app.command(
        rich_help_panel=panel,
        epilog="Example: i2l evaluate --predictor training/predictor --pairs pairs --output report",
    )(evaluate)


def train(
    ctx: typer.Context,
    pairs: PairsOption,
    output: OutputOption,
    workspace: WorkspaceOption = None,
    recipe: RecipeOption = DEFAULT_RECIPE,
    overrides: SetOption = None,
    profile: Annotated[
        bool,
        typer.Option("--profile", help="Write a torch profiler trace of a few steps to profile/."),
    ] = False,
    dry_run: DryRunOption = False,
    debug: DebugOption = False,
) -> None:
    """Train a predictor; the same command continues a training that was stopped."""
    settings = read_recipe(recipe, overrides, {"training.profile": profile or None})
    if dry_run:
        print_settings(
            pairs=pairs,
            output=output,
            warm_start=settings.warm_start,
            training=settings.training,
            tracking=settings.tracking,
        )
        _print_memory(settings.training, pairs)
        return
    from jobs.training.run import run_training
    from pipelines.predictors import warm_started

    tracking = tracking_of(settings, recipe, workspace)
    config, init_from = warm_started(settings.training, settings.warm_start, tracking)
    with ctx.ensure_object(Session).job() as progress:
        result = run_training(config, pairs, output, progress, tracking, init_from=init_from)
    typer.echo(f"predictor:  {result.predictor_uri}")
    typer.echo(f"MLflow run: {result.run_id}")


def _print_memory(config: TrainingConfig, pairs: str) -> None:
    """Print what a worker needs, also where the pairs are refused, as before they were mined."""
    from jobs.training.memory_limit import check_memory
    from jobs.training.preparation import check_pairs

    prompt, refused = None, None
    try:
        prompt = check_pairs(config, pairs)
    except InputError as error:
        refused = error
    estimate = check_memory(config, prompt)
    if estimate is not None:
        print_settings(memory_of_a_worker=estimate.described())
    if refused is not None:
        raise refused


def evaluate(
    ctx: typer.Context,
    predictor: Annotated[
        str,
        typer.Option("--predictor", metavar="URI", help="Predictor folder, or models:/NAME@ALIAS."),
    ],
    pairs: PairsOption,
    output: OutputOption,
    workspace: WorkspaceOption = None,
    recipe: RecipeOption = DEFAULT_RECIPE,
    overrides: SetOption = None,
    dry_run: DryRunOption = False,
    debug: DebugOption = False,
) -> None:
    """Judge a predictor on held-out styles, against the backbone without a LoRA."""
    settings = read_recipe(recipe, overrides)
    if dry_run:
        print_settings(
            predictor=predictor, pairs=pairs, output=output, evaluation=settings.evaluation
        )
        return
    from jobs.evaluation.run import run_evaluation
    from pipelines.predictors import local_predictor

    tracking = tracking_of(settings, recipe, workspace)
    with (
        ctx.ensure_object(Session).job() as progress,
        local_predictor(predictor, tracking) as folder,
    ):
        result = run_evaluation(settings.evaluation, str(folder), pairs, output, progress)
    typer.echo(f"report: {result.report_uri}")
    typer.echo(f"page:   {result.page_uri}")
