import json
import shutil
from pathlib import Path

import pytest

from i2l_model.errors import InputError
from jobs.registry.register import register_version
from jobs.registry.tracking import TrackingConfig
from jobs.training.config import TrainingConfig
from pipelines.predictors import local_predictor, warm_started
from tests.registry_files import Artefacts

TRACKING = TrackingConfig(uri="sqlite:////no/such/mlflow.db")


def test_a_warm_start_takes_the_sizes_of_its_predictor(predictor_folder: Path) -> None:
    before = TrainingConfig(steps=7, max_refs=2)
    config, place = warm_started(before, str(predictor_folder), TRACKING)
    stored = json.loads((predictor_folder / "config.json").read_text())
    assert place == str(predictor_folder)
    assert config.steps == 7
    assert config.predictor.rank == stored["rank"] != before.predictor.rank
    assert config.predictor.dim == stored["dim"]
    assert config.predictor.encoder.hidden_size == stored["encoder"]["hidden_size"]


def test_settings_that_do_not_fit_the_predictor_are_named(predictor_folder: Path) -> None:
    with pytest.raises(
        InputError, match=r"training\.max_refs \(4\) must be <= predictor\.max_refs"
    ):
        warm_started(TrainingConfig(max_refs=4), str(predictor_folder), TRACKING)


def test_a_warm_start_from_the_registry_takes_the_sizes_of_the_version(
    workspace: Path, predictor_folder: Path, tmp_path: Path
) -> None:
    tracking = TrackingConfig().resolve(workspace / "mlflow")
    made = Artefacts(tmp_path, "random-zimage")
    for name in ("config.json", "model.safetensors"):
        shutil.copyfile(predictor_folder / name, made.predictor / name)
    made.write_report({"backbone": "random-zimage"})
    version = register_version(tracking, str(made.predictor), str(made.report))
    uri = f"models:/{version.name}@candidate"
    config, init_from = warm_started(TrainingConfig(max_refs=2), uri, tracking)
    assert init_from == uri
    assert config.predictor.rank == 2 != TrainingConfig().predictor.rank
    with pytest.raises(InputError, match="nobody"):
        warm_started(TrainingConfig(), f"models:/{version.name}@nobody", tracking)


def test_without_a_warm_start_the_settings_stay() -> None:
    assert warm_started(TrainingConfig(), None, TRACKING) == (TrainingConfig(), None)


def test_a_warm_start_from_nowhere_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"warm_start .*nothing.* has no config.json"):
        warm_started(TrainingConfig(), str(tmp_path / "nothing"), TRACKING)


def test_a_warm_start_with_a_damaged_config_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"rank": ')
    with pytest.raises(InputError, match=r"warm_start .* has a damaged config\.json"):
        warm_started(TrainingConfig(), str(tmp_path), TRACKING)


def test_a_local_predictor_is_used_in_place(predictor_folder: Path) -> None:
    with local_predictor(str(predictor_folder), TRACKING) as folder:
        assert folder == predictor_folder


def test_the_shipped_predictor_is_the_default(
    predictor_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.predictors.asset_path", {"tiny-predictor": predictor_folder}.get)
    with local_predictor(None, TRACKING) as folder:
        assert folder == predictor_folder


@pytest.mark.parametrize("name", ["tiny-zimage", "tiny-encoder"])
def test_another_shipped_model_is_no_predictor(name: str) -> None:
    with (
        pytest.raises(InputError, match=rf"--predictor \({name}\) is shipped, but is no predictor"),
        local_predictor(name, TRACKING),
    ):
        pass


def test_a_registry_that_does_not_exist_is_not_made() -> None:
    with (
        pytest.raises(InputError, match="has no registry"),
        local_predictor("models:/i2l-x@champion", TRACKING),
    ):
        pass
    assert not Path("/no").exists()


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_a_folder_without_a_file_is_no_predictor(
    missing: str, predictor_folder: Path, tmp_path: Path
) -> None:
    for name in {"config.json", "model.safetensors"} - {missing}:
        (tmp_path / name).write_bytes((predictor_folder / name).read_bytes())
    with (
        pytest.raises(InputError, match=f"has no {missing}"),
        local_predictor(str(tmp_path), TRACKING),
    ):
        pass
