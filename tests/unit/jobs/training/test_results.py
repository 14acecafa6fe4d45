from pathlib import Path

import pytest

from i2l_model.errors import InputError
from jobs.predictor_folder import check_predictor
from jobs.training import results


def test_the_provenance_marks_a_published_predictor_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    (source / "model.safetensors").write_bytes(b"new")
    (target / "provenance.json").write_text("{}")

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(results.storage, "upload_folder", interrupted)
    with pytest.raises(KeyboardInterrupt):
        results.publish_predictor(source, str(target), {"step": 1})
    assert not (target / "provenance.json").exists()


def test_a_copy_that_was_cut_off_is_no_predictor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    for folder, content in ((source, b"{}"), (target, b"{ }")):
        folder.mkdir()
        for name in ("config.json", "model.safetensors"):
            (folder / name).write_bytes(content)

    def cut_off(folder: Path, uri: str) -> None:
        (Path(uri) / "config.json").parent.mkdir(exist_ok=True)
        (Path(uri) / "config.json").write_bytes((folder / "config.json").read_bytes())
        raise KeyboardInterrupt

    monkeypatch.setattr(results.storage, "upload_folder", cut_off)
    with pytest.raises(KeyboardInterrupt):
        results.publish_predictor(source, str(target), {"step": 1})
    with pytest.raises(InputError, match=r"has no model\.safetensors"):
        check_predictor(str(target), "target")
