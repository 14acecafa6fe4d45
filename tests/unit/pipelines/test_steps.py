from pathlib import Path
from typing import cast

from jobs.progress import NullProgress
from jobs.registry.promotion import promote, rollback
from jobs.registry.register import register_version
from jobs.registry.versions import ModelRegistry
from pipelines.recipe import load_recipe
from pipelines.steps import StepContext, is_registered, was_promoted
from pipelines.workspace import Workspace
from tests.registry_files import Artefacts


def test_a_version_holds_while_registered_and_a_promotion_once_done(
    workspace: Path, tmp_path: Path
) -> None:
    context = StepContext(load_recipe("quickstart"), Workspace(workspace), NullProgress())
    first, second = (
        register_version(context.tracking, str(made.predictor), str(made.report))
        for made in (Artefacts(tmp_path / str(value), "m", value) for value in (1.0, 2.0))
    )
    registry = ModelRegistry(context.tracking)
    promote(registry, first.name, first.version)
    outputs = {"model": second.name, "version": second.version}
    assert is_registered(context, outputs)
    assert not was_promoted(context, outputs)
    promote(registry, second.name, second.version)
    assert was_promoted(context, outputs)
    rollback(registry, second.name)
    assert was_promoted(context, outputs), "the next run would undo the rollback"
    assert not is_registered(context, outputs | {"version": 3})
    cast(Path, context.tracking.database).unlink()
    assert not is_registered(context, outputs)
    assert not was_promoted(context, outputs)
    assert not cast(Path, context.tracking.database).exists()
