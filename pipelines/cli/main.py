"""The command ``i2l``.

Nothing heavy is imported here: each command imports its job when it runs, so that ``i2l --help``
answers at once.
"""

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from pipelines.cli import (
    data,
    demo,
    failures,
    images,
    info,
    models,
    registry,
    tiny_models,
    workflow,
)
from pipelines.cli.lists import spread_lists
from pipelines.cli.session import Session, quiet_libraries

app = typer.Typer(
    name="i2l",
    help="Predict a style LoRA from one to four images in one forward pass, and train, judge and "
    "keep the predictor that does it.",
    epilog="Start with: i2l run --recipe quickstart",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
for group in (workflow, images, demo, info, data, models, registry, tiny_models):
    group.add_commands(app)


def _print_version(value: bool) -> None:
    if value:
        from importlib.metadata import version

        typer.echo(f"i2l {version('i2l')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Take the options of ``i2l`` itself."""


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code.

    Args:
        arguments: What stands behind ``i2l`` on the command line.

    Returns:
        0 on success, 2 on bad input, 3 when a gate refuses, 130 when interrupted, 1 on any other
        failure.
    """
    quiet_libraries()
    session = Session()
    name = " ".join(["i2l", *[part for part in arguments[:1] if not part.startswith("-")]])
    try:
        code = typer.main.get_command(app).main(
            spread_lists(arguments), prog_name="i2l", standalone_mode=False, obj=session
        )
    except BaseException as error:
        if isinstance(error, (SystemExit, GeneratorExit)):
            raise
        log_file = str(session.log_file) if session.log_file else None
        return failures.report(error, command=name, debug=session.debug, log_file=log_file)
    if code == failures.INTERRUPTED:  # the parser catches the signal before it gets here
        return failures.report(KeyboardInterrupt(), command=name, debug=False, log_file=None)
    return code if isinstance(code, int) else failures.OK


def main() -> None:
    """Entry point of the console script."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
