import json
import re
from pathlib import Path

import pytest

from jobs.progress import NullProgress
from pipelines.index_page import write_index_page
from pipelines.recipe import Recipe, load_recipe
from pipelines.steps import StepContext
from pipelines.workspace import Workspace

REPORT = {
    "num_styles": 7,
    "metrics": {
        "null": {"style_overall": {"mean": 0.5, "lo": 0.4, "hi": 0.6, "n": 7}},
        "i2l_1": {
            "style_overall": {"mean": 0.25, "lo": 0.2, "hi": 0.3, "n": 7},
            "kid": {"mean": None, "lo": None, "hi": None, "n": 0},
        },
        "i2l_4": {"prompt_accuracy": {"mean": 1.0, "lo": None, "hi": None, "n": 1}},
    },
}


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return load_recipe("quickstart", ['description="a <b>bold</b> claim"'])


@pytest.fixture
def context(tmp_path: Path, recipe: Recipe) -> StepContext:
    place = Workspace(tmp_path)
    place.create()
    return StepContext(recipe, place, NullProgress())


def page(context: StepContext) -> str:
    return write_index_page(context).read_text()


def write_report(context: StepContext) -> Path:
    folder = context.workspace.folder("report")
    (folder / "report").mkdir(parents=True)
    (folder / "report.json").write_text(json.dumps(REPORT))
    (folder / "report" / "index.html").write_text("")
    (folder / "report" / "grid-0.png").write_bytes(b"")
    return folder


def test_an_empty_workspace_says_how_to_go_on(context: StepContext) -> None:
    assert "continues it" in page(context)


def test_settings_are_escaped(context: StepContext) -> None:
    assert "a &lt;b&gt;bold&lt;/b&gt; claim" in page(context)


def test_results_show_conditions_means_and_intervals(context: StepContext) -> None:
    write_report(context)
    text = page(context)
    assert "7 held-out styles" in text
    for expected in ("no LoRA", "i2L, 1 reference<", "i2L, 4 references", "0.250 [0.200, 0.300]"):
        assert expected in text
    assert ">1.000<" in text  # no interval of a single style
    assert "None" not in text


def test_links_and_pictures_exist_beside_the_page(context: StepContext) -> None:
    write_report(context)
    places = re.findall(r'(?:href|src)="([^"]+)"', page(context))
    assert "report/report/grid-0.png" in places
    assert "report/report/index.html" in places
    for place in places:
        assert (context.workspace.root / place).exists(), place


def test_the_champion_is_shown_with_a_command_to_use_it(context: StepContext) -> None:
    context.outputs["champion"] = {"model": "i2l-x", "version": 3, "content": "models:/i2l-x/3"}
    text = page(context)
    assert "models:/i2l-x/3" in text
    assert "--predictor models:/i2l-x@champion" in text


def test_a_version_that_is_not_champion_says_so(context: StepContext) -> None:
    context.outputs["version"] = {"model": "i2l-x", "version": 3, "content": "models:/i2l-x/3"}
    assert "Version 3 is registered and is not champion" in page(context)
