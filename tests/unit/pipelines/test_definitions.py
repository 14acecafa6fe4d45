from pathlib import Path

import dagster as dg
import pytest

from i2l_model.errors import InputError
from pipelines.definitions import defs, step_runner
from pipelines.workflow import CHECKS, STEPS
from pipelines.workspace import Workspace


def test_a_run_holds_its_workspace(tmp_path: Path) -> None:
    settings = {"runner": {"config": {"workspace": str(tmp_path)}}}
    with (
        dg.build_resources({"runner": step_runner}, resource_config=settings),
        pytest.raises(InputError, match="is in use by a run"),
        Workspace(tmp_path).locked(),
    ):
        pass


def test_definitions_load() -> None:
    dg.Definitions.validate_loadable(defs)


def test_the_job_holds_every_step_in_the_order_of_the_list() -> None:
    graph = defs.resolve_job_def("workflow").asset_layer.asset_graph
    order = [
        key.to_user_string() for level in graph.toposorted_asset_keys_by_level for key in level
    ]
    assert order == [step.name for step in STEPS]


def test_every_check_blocks_what_is_behind_it() -> None:
    graph = defs.resolve_job_def("workflow").asset_layer.asset_graph
    checks = {key.name: key.asset_key.to_user_string() for key in graph.asset_check_keys}
    assert checks == {check.name: check.of for check in CHECKS}
    assert all(graph.get(key).blocking for key in graph.asset_check_keys)


def test_steps_need_only_steps_before_them() -> None:
    known: set[str] = set()
    for step in STEPS:
        assert set(step.needs) <= known
        known.add(step.name)
