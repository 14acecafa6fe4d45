from pathlib import Path

import pytest

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
