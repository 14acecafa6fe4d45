from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from i2l_model.errors import InputError
from jobs.registry.register import register_version
from jobs.registry.tracking import TrackingConfig
from jobs.registry.versions import ModelRegistry, model_name
from tests.registry_files import Artefacts


@pytest.fixture(scope="module")
def registered(
    tracking: TrackingConfig, tmp_path_factory: pytest.TempPathFactory
) -> list[Artefacts]:
    """Two versions of i2l-versions."""
    artefacts = []
    for value in (1.0, 2.0):
        made = Artefacts(tmp_path_factory.mktemp("version"), "versions", value)
        register_version(tracking, str(made.predictor), str(made.report))
        artefacts.append(made)
    return artefacts


def test_versions_are_listed_newest_first(
    registry: ModelRegistry, registered: list[Artefacts]
) -> None:
    versions = registry.list_versions("i2l-versions")
    assert [version.version for version in versions] == [2, 1]
    assert versions[0].aliases == ("candidate",)
    assert versions[1].aliases == ()
    assert versions[0].created_at is not None
    assert {version.name for version in registry.list_versions()} >= {"i2l-versions"}


@pytest.mark.parametrize(
    ("uri", "value"), [("models:/i2l-versions@candidate", 2.0), ("models:/i2l-versions/1", 1.0)]
)
def test_download_gives_the_named_predictor(
    registry: ModelRegistry, registered: list[Artefacts], tmp_path: Path, uri: str, value: float
) -> None:
    folder = registry.download(uri, tmp_path / "predictor")
    assert load_file(folder / "model.safetensors")["w"].tolist() == [value] * 4
    names = {path.name for path in folder.iterdir()}
    assert names == {"config.json", "model.safetensors", "provenance.json"}


@pytest.mark.parametrize(
    "uri",
    ["models:/i2l-versions@nobody", "models:/i2l-versions/9", "models:/i2l-unknown@candidate"],
)
def test_what_does_not_exist_is_an_input_error(
    registry: ModelRegistry, registered: list[Artefacts], uri: str
) -> None:
    with pytest.raises(InputError, match="does not exist"):
        registry.download(uri)


@pytest.mark.parametrize("uri", ["models:/a", "models:/a/b", "models:/a@b@c", "models:/a/1/x"])
def test_a_malformed_uri_is_an_input_error(registry: ModelRegistry, uri: str) -> None:
    with pytest.raises(InputError, match="is no registry URI"):
        registry.resolve(uri)


def test_exchanged_weights_are_noticed(
    tracking: TrackingConfig, registry: ModelRegistry, tmp_path: Path
) -> None:
    made = Artefacts(tmp_path, "exchanged")
    version = register_version(tracking, str(made.predictor), str(made.report))
    stored = Path(version.source.removeprefix("file://")) / "predictor" / "model.safetensors"
    save_file({"w": torch.full((4,), 9.0)}, stored)
    with pytest.raises(InputError, match="has other weights than were registered"):
        registry.download(version.uri)


def test_lost_files_are_an_input_error(
    tracking: TrackingConfig, registry: ModelRegistry, tmp_path: Path
) -> None:
    made = Artefacts(tmp_path, "lost")
    version = register_version(tracking, str(made.predictor), str(made.report))
    stored = Path(version.source.removeprefix("file://")) / "predictor"
    stored.rename(stored.with_name("moved"))
    with pytest.raises(InputError, match="cannot be read"):
        registry.download(version.uri)


def test_setting_an_alias_to_a_missing_version_is_an_input_error(
    registry: ModelRegistry, registered: list[Artefacts]
) -> None:
    with pytest.raises(InputError, match="does not exist"):
        registry.set_alias("i2l-versions", "champion", 77)


def test_model_names_hold_no_characters_that_mlflow_refuses() -> None:
    assert model_name("Tongyi-MAI/Z-Image") == "i2l-Tongyi-MAI-Z-Image"
    assert model_name("tiny-zimage") == "i2l-tiny-zimage"
