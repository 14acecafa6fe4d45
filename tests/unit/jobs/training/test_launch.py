import pytest

from i2l_model.errors import InputError
from jobs.training import launch
from jobs.training.config import TrainingConfig

CONFIG = TrainingConfig(num_workers=2, loaders_per_worker=1, device="cuda")


@pytest.fixture
def resources(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    found = {"CPU": 4.0, "GPU": 2.0}
    monkeypatch.setattr(launch.ray, "cluster_resources", lambda: found)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return found


def test_gpus_are_taken_where_there_are_enough(resources: dict[str, float]) -> None:
    auto = CONFIG.model_copy(update={"device": "auto"})
    assert launch.choose_device(auto) == "cuda"
    resources["GPU"] = 1
    assert launch.choose_device(auto) == "cpu"


@pytest.mark.parametrize(("name", "problem"), [("CPU", "need 4 CPUs"), ("GPU", "need a GPU each")])
def test_too_few_are_refused_on_one_machine_and_waited_for_on_a_cluster(
    resources: dict[str, float],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    name: str,
    problem: str,
) -> None:
    resources[name] -= 1
    with pytest.raises(InputError, match=problem):
        launch.choose_device(CONFIG)
    monkeypatch.setenv("RAY_ADDRESS", "cluster:6379")
    assert launch.choose_device(CONFIG) == "cuda"
    assert problem in caplog.text
