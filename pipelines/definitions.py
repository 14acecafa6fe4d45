"""What Dagster loads: ``dagster dev -m pipelines.definitions``.

Recipe and workspace are settings of the ``runner`` resource, which the launchpad can change.
"""

from collections.abc import Iterator

import dagster as dg

from jobs.progress import LogProgress
from pipelines.display import LogDisplay
from pipelines.recipe import load_recipe
from pipelines.runner import StepRunner
from pipelines.steps import StepContext
from pipelines.workflow import ASSET_CHECKS, ASSETS
from pipelines.workspace import DEFAULT_ROOT, Workspace

_RUNNER_SETTINGS = {
    "recipe": dg.Field(
        str, default_value="quickstart", description="shipped recipe or path of a YAML file"
    ),
    "overrides": dg.Field(
        [str], default_value=[], description="items dotted.key=value that change the recipe"
    ),
    "workspace": dg.Field(
        dg.Noneable(str), default_value=None, description="folder; empty: i2l-workspace/<recipe>"
    ),
}


@dg.resource(config_schema=_RUNNER_SETTINGS)
def step_runner(context: dg.InitResourceContext) -> Iterator[StepRunner]:
    """Make the runner of a Dagster run, which holds the workspace until its end."""
    settings = context.resource_config
    recipe = load_recipe(settings["recipe"], settings["overrides"])
    workspace = Workspace(settings["workspace"] or DEFAULT_ROOT / recipe.name)
    workspace.create()
    with workspace.locked():
        yield StepRunner(StepContext(recipe, workspace, LogProgress()), LogDisplay())


defs = dg.Definitions(
    assets=ASSETS,
    asset_checks=ASSET_CHECKS,
    jobs=[dg.define_asset_job("workflow", selection="*")],
    executor=dg.in_process_executor,  # one process holds the workspace
    resources={"runner": step_runner},
)
