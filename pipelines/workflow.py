"""The workflow as one list, and the Dagster assets and checks made from it.

    shards → pairs → predictor → report → version → champion
             acceptance                   gate

A step whose settings and inputs have not changed and whose outputs are still there is not run
again. A check that says no stops everything behind it.
"""

import dagster as dg

from pipelines import steps
from pipelines.runner import Check, Step, StepRunner

STEPS = (
    Step(
        "shards",
        steps.make_shards,
        settings=("corpus", "pack"),
        outside=steps.own_images,
        replaces=True,
    ),
    Step("pairs", steps.mine_pairs, needs=("shards",), settings=("mining",)),
    Step(
        "predictor",
        steps.train_predictor,
        needs=("pairs",),
        settings=("acceptance", "training", "warm_start"),
        outside=steps.initial_weights,
    ),
    Step(
        "report",
        steps.evaluate_predictor,
        needs=("pairs", "predictor"),
        settings=("evaluation",),
    ),
    Step(
        "version",
        steps.register_version,
        needs=("predictor", "report"),
        settings=("tracking",),
        holds=steps.is_registered,
    ),
    Step(
        "champion",
        steps.promote_champion,
        needs=("version",),
        settings=("gate",),
        holds=steps.was_promoted,
    ),
)
CHECKS = (
    Check("acceptance", of="pairs", run=steps.check_pairs),
    Check("gate", of="version", run=steps.check_version),
)


def _asset(step: Step) -> dg.AssetsDefinition:
    @dg.asset(name=step.name, deps=step.needs, description=step.description)
    def materialize(runner: dg.ResourceParam[StepRunner]) -> dg.MaterializeResult[None]:
        marker = runner.run(step)
        return dg.MaterializeResult(metadata={**marker.outputs, "seconds": marker.seconds})

    return materialize


def _asset_check(check: Check) -> dg.AssetChecksDefinition:
    @dg.asset_check(name=check.name, asset=check.of, blocking=True, description=check.description)
    def judge(runner: dg.ResourceParam[StepRunner]) -> dg.AssetCheckResult:
        reasons = list(runner.check(check))
        return dg.AssetCheckResult(passed=not reasons, metadata={"reasons": reasons})

    return judge


ASSETS = [_asset(step) for step in STEPS]
ASSET_CHECKS = [_asset_check(check) for check in CHECKS]
