import gzip
import json
from pathlib import Path

import pytest
import torch

from jobs.registry.tracking import TrackingConfig
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
    for step in profiled(job(tmp_path, inputs, config, profile=True), range(4, 12)):
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
    assert list(profiled(job(tmp_path, inputs, config, profile=False), range(3))) == [0, 1, 2]
    assert not (tmp_path / "profile").exists()
