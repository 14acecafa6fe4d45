import json
from pathlib import Path

import pytest

from i2l_model.errors import InputError
from jobs.provenance import file_hash
from jobs.registry.register import register_version
from jobs.registry.tracking import TrackingConfig
from jobs.registry.versions import ModelRegistry
from tests.registry_files import Artefacts


def test_a_version_holds_predictor_report_and_samples(
    tracking: TrackingConfig, registry: ModelRegistry, tmp_path: Path
) -> None:
    made = Artefacts(tmp_path / "made", "whole")
    version = register_version(tracking, str(made.predictor), str(made.report))
    assert (version.name, version.version, version.aliases) == ("i2l-whole", 1, ("candidate",))
    assert version.tags["pairs_hash"] == "p1"
    assert version.tags["git_sha"] == "abc"
    assert version.tags["config_hash"] == "c1"
    registry.download_files(version, "report", tmp_path / "report")
    registry.download_files(version, "samples", tmp_path / "samples")
    files = {p.relative_to(tmp_path).as_posix() for p in (tmp_path / "report").rglob("*.*")}
    assert files == {"report/report.json", "report/report/index.html"}
    assert (tmp_path / "samples" / "loras" / "style-0.safetensors").is_file()
    assert (tmp_path / "samples" / "images" / "style-0.png").is_file()


def test_registering_the_same_again_gives_the_same_version(
    tracking: TrackingConfig, registry: ModelRegistry, tmp_path: Path
) -> None:
    made = Artefacts(tmp_path, "again")
    first = register_version(tracking, str(made.predictor), str(made.report))
    second = register_version(tracking, str(made.predictor), str(made.report))
    assert second == first
    assert len(registry.list_versions("i2l-again")) == 1
    made.write_report({"backbone": "again", "num_styles": 7})
    third = register_version(tracking, str(made.predictor), str(made.report))
    assert (third.version, third.aliases) == (2, ("candidate",))


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("predictor/model.safetensors", "has no model.safetensors"),
        ("predictor/provenance.json", "has no provenance.json"),
        ("report/report.json", "does not exist"),
        ("report/samples/images/style-0.png", r"holds no images/\*\.png"),
        ("report/samples/loras/style-0.safetensors", r"holds no loras/\*\.safetensors"),
    ],
)
def test_what_is_missing_is_named_and_nothing_registered(
    tracking: TrackingConfig, registry: ModelRegistry, tmp_path: Path, missing: str, message: str
) -> None:
    made = Artefacts(tmp_path, "incomplete")
    (tmp_path / missing).unlink()
    with pytest.raises(InputError, match=message):
        register_version(tracking, str(made.predictor), str(made.report))
    assert "i2l-incomplete" not in registry.names()


def test_a_name_that_no_command_would_list_is_refused(
    tracking: TrackingConfig, registry: ModelRegistry, tmp_path: Path
) -> None:
    made = Artefacts(tmp_path, "named")
    with pytest.raises(InputError, match=r"--model \(style-a\) does not .*; call it i2l-style-a"):
        register_version(tracking, str(made.predictor), str(made.report), name="style-a")
    versions = [
        register_version(tracking, str(made.predictor), str(made.report), name="i2l-style-a")
        for _ in range(2)
    ]
    assert versions == registry.list_versions("i2l-style-a") * 2
    assert "i2l-style-a" in registry.names()


def test_the_named_report_is_the_registered_one_whatever_it_is_called(
    tracking: TrackingConfig, registry: ModelRegistry, tmp_path: Path
) -> None:
    made = Artefacts(tmp_path / "made", "renamed")
    folder, page = made.report.parent, made.page.parent
    final = made.report.rename(folder / "final.json")
    made.write_report({"backbone": "renamed", "num_styles": 1})  # an older one beside it
    (page / "grid-0.png").write_bytes(b"png")
    (page / "chunks").mkdir()
    for other in (folder / "notes.json", page / "report.json", page / "chunks" / "a.png"):
        other.write_text("{}")
    version = register_version(tracking, str(made.predictor), str(final))
    stored = tmp_path / "stored"
    registry.download_files(version, "report", stored)
    found = {path.relative_to(stored).as_posix() for path in stored.rglob("*.*")}
    assert found == {"report.json", "report/index.html", "report/grid-0.png"}
    assert (stored / "report.json").read_bytes() == final.read_bytes()
    assert version.tags["report_sha256"] == file_hash(str(final))


def test_a_damaged_report_is_named(tracking: TrackingConfig, tmp_path: Path) -> None:
    made = Artefacts(tmp_path, "damaged")
    made.report.write_text("{")
    with pytest.raises(InputError, match=r"report \(.*report\.json\) is no JSON"):
        register_version(tracking, str(made.predictor), str(made.report))


def test_a_report_about_another_backbone_is_refused(
    tracking: TrackingConfig, tmp_path: Path
) -> None:
    made = Artefacts(tmp_path, "mine")
    made.write_report({"backbone": "another"})
    with pytest.raises(InputError, match="is about backbone another"):
        register_version(tracking, str(made.predictor), str(made.report))


def test_a_report_about_another_predictor_is_refused(
    tmp_path: Path, tracking: TrackingConfig
) -> None:
    good, bad = (Artefacts(tmp_path / name, "a", value) for name, value in (("g", 1.0), ("b", 2.0)))
    with pytest.raises(InputError, match="is about another predictor"):
        register_version(tracking, str(bad.predictor), str(good.report))


def test_the_folder_of_a_report_may_be_named(tmp_path: Path, tracking: TrackingConfig) -> None:
    made = Artefacts(tmp_path / "made", "a")
    version = register_version(tracking, str(made.predictor), str(made.report.parent))
    assert version == register_version(tracking, str(made.predictor), str(made.report))


def test_records_without_what_registration_reads_are_named(
    tracking: TrackingConfig, tmp_path: Path
) -> None:
    made = Artefacts(tmp_path, "bare")
    made.report.write_text(json.dumps({"predictor": "p"}))
    with pytest.raises(InputError, match="is about another predictor"):
        register_version(tracking, str(made.predictor), str(made.report))
    (made.predictor / "config.json").write_text("{}")
    with pytest.raises(InputError, match="names no backbone"):
        register_version(tracking, str(made.predictor), str(made.report))
