from pathlib import Path

import pytest

from i2l_model import assets
from i2l_model.errors import InputError


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "assets"
    for name in ("tiny-zimage", "tiny-encoder"):
        (folder / name).mkdir(parents=True)
    (folder / "NOTICE").write_text("a file is no asset")
    monkeypatch.setattr(assets, "_ASSETS", folder)
    return folder


def test_returns_the_folder_of_an_asset(shipped: Path) -> None:
    assert assets.asset_path("tiny-zimage") == shipped / "tiny-zimage"


def test_an_unknown_name_lists_the_known_ones(shipped: Path) -> None:
    with pytest.raises(InputError) as caught:
        assets.asset_path("tiny-flux")

    assert str(caught.value) == (
        "asset (tiny-flux) is not shipped with i2l; use one of: tiny-encoder, tiny-zimage"
    )


@pytest.mark.parametrize("name", ["../assets", "tiny-zimage/..", "NOTICE", "", "."])
def test_only_names_of_shipped_folders_are_accepted(shipped: Path, name: str) -> None:
    with pytest.raises(InputError):
        assets.asset_path(name)


def test_a_package_without_assets_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assets, "_ASSETS", tmp_path / "none")

    assert assets.available_assets() == ()
    with pytest.raises(InputError, match="use one of: none"):
        assets.asset_path("tiny-zimage")


@pytest.mark.parametrize("name", assets.available_assets())
def test_what_ships_is_small_and_holds_nothing_to_unpickle(name: str) -> None:
    files = [path for path in assets.asset_path(name).rglob("*") if path.is_file()]
    assert {path.suffix for path in files} <= {".json", ".jinja", ".safetensors", ".txt"}
    assert sum(path.stat().st_size for path in files) <= 16 * 2**20
