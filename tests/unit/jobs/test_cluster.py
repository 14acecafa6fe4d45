import pytest
from ray.exceptions import RayTaskError
from ray.train import TrainingFailedError
from ray.train.v2.api.exceptions import WorkerGroupError

from i2l_model.errors import InputError
from jobs.cluster import worker_errors
from jobs.storage import StorageError

BAD_INPUT = InputError("a", 1, "is bad", "change it")


class Diverged(RuntimeError):
    """An error that a job knows."""


class Wrapped(Exception):
    def __init__(self, inner: BaseException) -> None:
        self._base_exc = inner
        super().__init__("trace")


def raised(error: Exception) -> BaseException:
    """What leaves the block that ``error`` is raised in."""
    with pytest.raises(Exception) as caught, worker_errors(Diverged):  # noqa: PT011
        raise error
    return caught.value


def test_the_worker_error_comes_out_of_its_wrappers() -> None:
    diverged = Diverged("loss (nan) is not finite at step 3")
    error = WorkerGroupError("failed", {1: RuntimeError("gloo"), 0: Wrapped(diverged)})
    assert raised(error) is diverged
    assert raised(WorkerGroupError("failed", {0: BAD_INPUT})) is BAD_INPUT


def test_the_stand_in_of_ray_is_replaced_by_the_error_itself() -> None:
    stand_in = RayTaskError("f", "Traceback ...", BAD_INPUT).as_instanceof_cause()
    assert isinstance(stand_in, InputError)
    assert raised(stand_in) is BAD_INPUT
    assert raised(WorkerGroupError("failed", {0: stand_in})) is BAD_INPUT


def test_a_failing_server_is_named_without_wrappers() -> None:
    failing = StorageError("s3://bucket/x failed after retries (503 SlowDown)")
    assert raised(RayTaskError("f", "Traceback ...", failing).as_instanceof_cause()) is failing


def test_other_failures_stay_as_they_are() -> None:
    for error in (TrainingFailedError("lost a node"), BAD_INPUT, KeyError("x")):
        assert raised(error) is error
