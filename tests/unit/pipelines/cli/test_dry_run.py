from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.cli.main import run
from pipelines.recipe import recipe_names
from tests.pair_shards import write_pairs

CALLS = {
    "corpus": ["--output", "o"],
    "pack": ["folder", "--output", "o"],
    "mine": ["--input", "i", "--output", "o"],
    "train": ["--pairs", "PAIRS", "--output", "o"],
    "evaluate": ["--predictor", "x", "--pairs", "p", "--output", "o"],
    "register": ["--predictor", "x", "--report", "r"],
    "promote": ["--version", "2"],
    "rollback": [],
    "versions": [],
    "predict": ["a.png", "b.png", "--output", "o.safetensors"],
    "generate": ["--prompt", "a cat", "--ref", "a.png", "b.png", "--output", "o"],
    "model-info": ["--backbone", "z-image", "--architecture", "1"],
    "demo": ["--port", "8000"],
    "run": [],
}


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Enough styles for a step of the quickstart."""
    return write_pairs(tmp_path_factory.mktemp("pairs"), train_styles=12)


def settings_of(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert run([*arguments, "--dry-run"]) == 0
    settings = yaml.safe_load(capsys.readouterr().out)
    assert isinstance(settings, dict)
    return settings


@pytest.mark.usefixtures("workspace")
@pytest.mark.parametrize("recipe", recipe_names())
def test_every_recipe_dry_runs_and_writes_nothing(
    recipe: str, capsys: pytest.CaptureFixture[str], tmp_path: Any
) -> None:
    settings = settings_of(["run", "--recipe", recipe], capsys)
    assert settings["name"] == recipe
    assert settings["workspace"].endswith(f"i2l-workspace/{recipe}")
    assert list((tmp_path / "workspace").iterdir()) == []


@pytest.mark.usefixtures("workspace")
@pytest.mark.parametrize("command", CALLS)
def test_every_command_dry_runs_and_writes_nothing(
    command: str, pairs: Path, capsys: pytest.CaptureFixture[str], tmp_path: Any
) -> None:
    given = [str(pairs) if word == "PAIRS" else word for word in CALLS[command]]
    assert settings_of([command, *given], capsys)
    assert list((tmp_path / "workspace").iterdir()) == []


def test_the_resolved_settings_show_recipe_then_set_then_flags(
    capsys: pytest.CaptureFixture[str],
) -> None:
    settings = settings_of(
        ["corpus", "--output", "o", "--set", "corpus.seed=8", "--set", "corpus.size=96",
         "--size", "128"],
        capsys,
    )  # fmt: skip
    assert settings["corpus"]["seed"] == 8
    assert settings["corpus"]["size"] == 128
    assert settings["corpus"]["num_styles"] == 400


def test_lists_behind_one_option_arrive_whole(capsys: pytest.CaptureFixture[str]) -> None:
    settings = settings_of(
        ["predict", "a.png", "b.png", "--weights", "0.7", "0.3", "--output", "o.safetensors"],
        capsys,
    )
    assert settings["images"] == ["a.png", "b.png"]
    assert settings["weights"] == [0.7, 0.3]


def test_model_info_shows_the_registry_that_it_would_read(
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ["model-info", "--set", "tracking.uri=http://registry:5000"]
    assert settings_of(arguments, capsys)["tracking"]["uri"] == "http://registry:5000"


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ([], "has no train shards"),
        (["--set", "training.styles_per_step=13"], "has 12 train styles, fewer than"),
    ],
)
def test_pairs_that_do_not_do_are_refused_by_the_dry_run(
    changes: list[str], problem: str, pairs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = str(pairs) if changes else "no-such-folder"
    assert run(["train", "--pairs", given, "--output", "o", "--dry-run", *changes]) == 2
    captured = capsys.readouterr()
    assert problem in captured.err
    assert "memory_of_a_worker" in captured.out
