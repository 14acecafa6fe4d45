import json
from pathlib import Path

import pytest

from i2l_model.errors import InputError
from jobs.evaluation.config import EvaluationConfig
from jobs.evaluation.run import run_evaluation
from jobs.predictor_folder import check_predictor, read_provenance, read_record
from jobs.provenance import bytes_hash
from jobs.registry.register import register_version
from jobs.registry.tracking import TrackingConfig
from pipelines.predictors import local_predictor
from tests.registry_files import Artefacts

MIXED = "has other weights in model.safetensors than its provenance.json names; copy the whole"


@pytest.fixture
def made(tmp_path: Path) -> Artefacts:
    """A predictor with the provenance of other weights."""
    made = Artefacts(tmp_path, "mixed")
    (made.predictor / "provenance.json").write_text(
        json.dumps({"predictor_sha256": bytes_hash(b"earlier weights")})
    )
    return made


def test_mixed_folders_are_refused_wherever_a_predictor_is_named(
    made: Artefacts, tmp_path: Path
) -> None:
    tracking = TrackingConfig().resolve(tmp_path / "mlflow")
    folder = str(made.predictor)
    with pytest.raises(InputError, match=MIXED), local_predictor(folder, tracking):
        pass
    with pytest.raises(InputError, match=MIXED):
        run_evaluation(EvaluationConfig(), folder, "no-pairs", str(tmp_path / "out"))
    with pytest.raises(InputError, match=MIXED):
        register_version(tracking, folder, str(made.report))


@pytest.mark.parametrize("content", ["{", "[1]", "\x00"])
@pytest.mark.parametrize("file", ["config.json", "provenance.json"])
def test_a_damaged_file_is_named(made: Artefacts, file: str, content: str) -> None:
    (made.predictor / file).write_text(content)
    with pytest.raises(InputError, match=rf"init_from \(p\) has a damaged {file} .*; copy the"):
        read_record(str(made.predictor), file, "p", field="init_from")


def test_a_damaged_provenance_is_named_wherever_a_predictor_is(made: Artefacts) -> None:
    (made.predictor / "provenance.json").write_text("{")
    with pytest.raises(InputError, match=r"predictor \(p\) has a damaged provenance\.json"):
        check_predictor(str(made.predictor), "p")


def test_whole_folders_and_those_without_provenance_are_taken(made: Artefacts) -> None:
    folder = made.predictor
    digest = bytes_hash((folder / "model.safetensors").read_bytes())
    (folder / "provenance.json").write_text(json.dumps({"predictor_sha256": digest}))
    check_predictor(str(folder), "p")
    assert read_provenance(str(folder), "p") == {"predictor_sha256": digest}
    (folder / "provenance.json").unlink()
    assert read_provenance(str(folder), "p") is None
    check_predictor(str(folder), "p")
