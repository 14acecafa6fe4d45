"""From the command line to the settings of a job."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import typer
from pydantic import BaseModel

from i2l_model.errors import InputError

if TYPE_CHECKING:
    from jobs.registry.tracking import TrackingConfig
    from pipelines.recipe import Recipe
    from pipelines.workspace import Workspace

_Part = TypeVar("_Part", bound=BaseModel)


def read_recipe(
    recipe: str, overrides: Sequence[str] | None, flags: Mapping[str, object] | None = None
) -> "Recipe":
    """Load a recipe, changed by ``--set`` and then by the flags of the command.

    Args:
        recipe: Name or path of the recipe.
        overrides: Items dotted.key=value.
        flags: Dotted keys with the values of flags; None stands for a flag that was not given.
    """
    from pipelines.recipe import load_recipe

    given = [f"{key}={value}" for key, value in (flags or {}).items() if value is not None]
    return load_recipe(recipe, [*(overrides or ()), *given])


def print_settings(**settings: Any) -> None:
    """Print settings as YAML on standard output."""
    from pipelines.recipe import dump_yaml

    plain = {
        name: value.model_dump(mode="json") if isinstance(value, BaseModel) else value
        for name, value in settings.items()
    }
    typer.echo(dump_yaml(plain), nl=False)


def workspace_of(recipe: str, workspace: Path | None) -> "Workspace":
    """Return the named workspace, or i2l-workspace/<recipe> in the current folder."""
    from pipelines.workspace import DEFAULT_ROOT, Workspace

    return Workspace(workspace or DEFAULT_ROOT / Path(recipe).stem)


def tracking_of(settings: "Recipe", recipe: str, workspace: Path | None) -> "TrackingConfig":
    """Return the settings of the registry that models:/ means, its place filled in."""
    return settings.tracking.resolve(workspace_of(recipe, workspace).tracking)


def require_part(part: _Part | None, name: str, recipe: str) -> _Part:
    """Return a part of the recipe that a command cannot do without.

    Raises:
        InputError: If the recipe has none.
    """
    if part is None:
        raise InputError(name, "missing", f"is not in recipe {recipe}", "use another --recipe")
    return part
