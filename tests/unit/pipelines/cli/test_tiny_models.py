import json
import shutil
from pathlib import Path

import pytest

from i2l_model.predictor import LoraPredictor
from jobs.predictor_folder import check_predictor
from jobs.provenance import file_hash
from pipelines.cli.main import run

pytestmark = pytest.mark.usefixtures("workspace")


def test_a_shipped_predictor_is_half_the_size_and_whole(
    predictor_folder: Path, tmp_path: Path
) -> None:
    source, shipped = tmp_path / "source", tmp_path / "shipped"
    shutil.copytree(predictor_folder, source)
    weights = source / "model.safetensors"
    origin = {"predictor_sha256": file_hash(str(weights)), "git_sha": "abc"}
    (source / "provenance.json").write_text(json.dumps(origin))
    assert run(["ship-predictor", "--predictor", str(source), "--output", str(shipped)]) == 0
    assert (shipped / "model.safetensors").stat().st_size < 0.6 * weights.stat().st_size
    check_predictor(str(shipped), "shipped")
    assert json.loads((shipped / "provenance.json").read_text())["git_sha"] == "abc"
    LoraPredictor.from_pretrained(shipped)


def test_a_mixed_predictor_is_not_shipped(
    predictor_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "source"
    shutil.copytree(predictor_folder, source)
    (source / "provenance.json").write_text(json.dumps({"predictor_sha256": "0" * 64}))
    out = tmp_path / "shipped"
    assert run(["ship-predictor", "--predictor", str(source), "--output", str(out)]) == 2
    assert "has other weights" in capsys.readouterr().err
    assert not out.exists()
