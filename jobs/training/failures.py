"""What went wrong inside a Ray Train run."""

from i2l_model.errors import InputError
from jobs.training.trainer import TrainingDiverged


def root_cause(error: BaseException) -> BaseException:
    """The worker's own `InputError` or `TrainingDiverged` behind ``error``, else ``error``."""
    seen: set[int] = set()
    queue: list[BaseException] = [error]
    while queue:
        current = queue.pop(0)
        if isinstance(current, InputError | TrainingDiverged):
            return current
        if id(current) in seen:
            continue
        seen.add(id(current))
        failures = getattr(current, "worker_failures", {}) or {}
        inner = [
            *failures.values(),
            current.__cause__,
            getattr(current, "cause", None),
            getattr(current, "_base_exc", None),
        ]
        queue += [item for item in inner if isinstance(item, BaseException)]
    return error
