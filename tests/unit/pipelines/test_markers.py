from pathlib import Path

import pytest

from pipelines.markers import Marker, Markers, StepKey

KEY = StepKey("settings", "inputs")
OTHER_SETTINGS = StepKey("other", "inputs")
OTHER_INPUTS = StepKey("settings", "other")


@pytest.fixture
def markers(tmp_path: Path) -> Markers:
    return Markers(tmp_path / "state", tmp_path / "archive")


@pytest.fixture
def output(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "file").write_text("old")
    return folder


def test_a_step_is_finished_only_with_the_same_key(markers: Markers) -> None:
    marker = Marker(KEY, {"content": "abc"}, 1.5)
    assert markers.finished("mine", KEY) is None
    markers.finish("mine", marker)
    assert markers.finished("mine", KEY) == marker
    assert markers.finished("mine", OTHER_SETTINGS) is None
    assert markers.finished("mine", OTHER_INPUTS) is None


def test_a_step_whose_output_was_removed_is_not_finished(markers: Markers, output: Path) -> None:
    markers.finish("mine", Marker(KEY, {"pairs_uri": str(output)}))
    assert markers.finished("mine", KEY)
    (output / "file").unlink()
    output.rmdir()
    assert markers.finished("mine", KEY) is None


def test_a_started_step_is_not_finished(markers: Markers, output: Path) -> None:
    markers.finish("mine", Marker(KEY))
    markers.begin("mine", KEY, output, replaces=False)
    assert markers.finished("mine", KEY) is None


def test_an_interrupted_step_keeps_its_output(markers: Markers, output: Path) -> None:
    markers.begin("train", KEY, output, replaces=False)
    markers.begin("train", KEY, output, replaces=False)
    assert (output / "file").read_text() == "old"


@pytest.mark.parametrize(
    ("replaces", "key", "kept"),
    [
        (False, OTHER_SETTINGS, True),
        (False, OTHER_INPUTS, True),
        (True, OTHER_SETTINGS, False),
        (True, OTHER_INPUTS, True),
        (True, KEY, True),
    ],
)
def test_outputs_of_other_settings_are_set_aside(
    markers: Markers, output: Path, tmp_path: Path, replaces: bool, key: StepKey, kept: bool
) -> None:
    markers.begin("train", KEY, output, replaces=replaces)
    markers.begin("train", key, output, replaces=replaces)
    assert output.exists() == kept
    archived = list((tmp_path / "archive").glob("out-*/file"))
    assert [path.read_text() for path in archived] == ([] if kept else ["old"])
