from ray.train import TrainingFailedError
from ray.train.v2.api.exceptions import WorkerGroupError

from i2l_model.errors import InputError
from jobs.training.failures import root_cause
from jobs.training.trainer import TrainingDiverged


class Wrapped(Exception):
    def __init__(self, inner: BaseException) -> None:
        self._base_exc = inner
        super().__init__("trace")


def test_the_worker_error_comes_out_of_its_wrappers() -> None:
    diverged = TrainingDiverged("loss (nan) is not finite at step 3")
    error = WorkerGroupError("failed", {1: RuntimeError("gloo"), 0: Wrapped(diverged)})
    assert root_cause(error) is diverged
    bad_input = InputError("a", 1, "is bad", "change it")
    assert root_cause(WorkerGroupError("failed", {0: bad_input})) is bad_input


def test_other_failures_stay_as_they_are() -> None:
    error = TrainingFailedError("lost a node")
    assert root_cause(error) is error
