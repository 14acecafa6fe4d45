import gzip
import json
from pathlib import Path

import pytest
import torch

from jobs import storage
from jobs.registry.tracking import TrackingConfig
from jobs.training import patience, profiling
from jobs.training.config import TrainingConfig
from jobs.training.inputs import TrainingInputs
from jobs.training.job import TrainingJob
from jobs.training.profiling import profiled

pytestmark = pytest.mark.usefixtures("process_group")


def job(folder: Path, inputs: TrainingInputs, config: TrainingConfig, profile: bool) -> TrainingJob:
    return TrainingJob(
        config=config.model_copy(update={"profile": profile}),
        inputs=inputs,
        output_uri=str(folder),
        tracking=TrackingConfig(),
        device="cpu",
        init_uri=None,
        attempt_uri=str(folder),
        origin={},
    )


def test_three_steps_are_traced(
    tmp_path: Path, inputs: TrainingInputs, config: TrainingConfig
) -> None:
    seen = []
    for step in profiled(job(tmp_path, inputs, config, profile=True), range(4, 12), print):
        seen.append(step)
        torch.ones(8, 8) @ torch.ones(8, 8)
    assert seen == list(range(4, 12))
    (file,) = (tmp_path / "profile").iterdir()
    assert file.name == "steps-000007.json.gz"
    events = json.loads(gzip.decompress(file.read_bytes()))["traceEvents"]
    assert sum(event["name"] == "aten::matmul" for event in events) == 3


def test_nothing_is_traced_unless_asked_for(
    tmp_path: Path, inputs: TrainingInputs, config: TrainingConfig
) -> None:
    off = job(tmp_path, inputs, config, profile=False)
    assert list(profiled(off, range(3), print)) == [0, 1, 2]
    assert not (tmp_path / "profile").exists()


def test_a_trace_waits_for_storage_that_is_away(
    tmp_path: Path,
    inputs: TrainingInputs,
    config: TrainingConfig,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said: list[str] = []
    copy_file = storage.copy_file
    failures = iter([True, False])

    def copy(source: Path, target: str) -> None:
        if next(failures):
            raise storage.StorageError("no answer")
        copy_file(source, target)

    monkeypatch.setattr(profiling.storage, "copy_file", copy)
    monkeypatch.setattr(patience.time, "sleep", lambda _: None)
    traced = job(tmp_path, inputs, config, profile=True)
    assert list(profiled(traced, range(6), said.append)) == list(range(6))
    assert len(list((tmp_path / "profile").iterdir())) == 1
    assert "no answer" in said[0]
