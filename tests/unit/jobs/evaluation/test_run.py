import contextlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from i2l_model.lora.factors import LoraFactors
from jobs.evaluation import run
from jobs.evaluation.chunk import ChunkResult
from jobs.evaluation.chunk_files import write_chunk
from jobs.evaluation.config import EvaluationConfig
from jobs.progress import NullProgress
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


def test_samples_of_other_inputs_are_gone_and_those_of_a_killed_run_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = str(tmp_path)
    held_out = SimpleNamespace(subjects=frozenset())
    plans = [SimpleNamespace(index=0), SimpleNamespace(index=1)]

    def evaluate(inputs_hash: str, *, killed_before: int = 2) -> set[str]:
        def run_chunks(missing: list[Any], work: Any, _: object) -> None:
            for plan in missing:
                if plan.index == killed_before:
                    raise KeyboardInterrupt
                lora = LoraFactors({"x": torch.ones(1, 2, 4)}, {"x": torch.ones(1, 4, 2)})
                result = ChunkResult(reader="", loras={f"{inputs_hash}-{plan.index}": lora})
                write_chunk(output, plan.index, result, inputs_hash=inputs_hash)

        monkeypatch.setattr(run, "run_chunks", run_chunks)
        with contextlib.suppress(KeyboardInterrupt):
            run._evaluate(
                plans, EvaluationConfig(), "p", output, held_out, inputs_hash, NullProgress()
            )
        return {path.stem for path in (tmp_path / "samples" / "loras").iterdir()}

    assert evaluate("a") == {"a-0", "a-1"}
    assert evaluate("b", killed_before=1) == {"b-0"}
    assert evaluate("b") == {"b-0", "b-1"}
    assert evaluate("a", killed_before=1) == {"a-0"}
