import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from jobs.evaluation import run
from jobs.evaluation.config import EvaluationConfig
from jobs.provenance import pairs_hash
from tests.grid_pairs import write_grid_pairs
from tests.registry_files import Artefacts


def test_a_finished_report_is_told_anew_when_the_predictor_gets_its_provenance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, pairs = Artefacts(tmp_path / "made", "b"), write_grid_pairs(tmp_path / "pairs")
    provenance = made.predictor / "provenance.json"
    provenance.unlink()
    figures = SimpleNamespace(figures=dict)
    monkeypatch.setattr(run, "_evaluate", lambda *_: [SimpleNamespace(reader="classifier")])
    monkeypatch.setattr(run, "Summary", lambda *_, **__: figures)
    monkeypatch.setattr(run, "write_report", lambda *_: None)
    output, config = tmp_path / "report", EvaluationConfig(num_styles=2)

    def known() -> bool:
        report = run.run_evaluation(config, str(made.predictor), pairs, str(output)).report
        assert json.loads((output / "report.json").read_text()) == report
        return bool(report["held_out"]["pairs_of_training"])

    assert not known()
    provenance.write_text(json.dumps({"pairs_hash": pairs_hash(pairs)}))
    assert known()
    monkeypatch.setattr(run, "_evaluate", None)
    assert known()
