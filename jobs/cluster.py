"""Joining or starting the Ray cluster that jobs run on, and the errors that come back from it."""

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import ray

from i2l_model.errors import InputError
from jobs.storage import StorageError

logger = logging.getLogger(__name__)

# More logical CPUs than a small machine has cores: Ray reserves whole CPUs for workers that
# mostly wait, and without spare ones Ray Data and Ray Train wait for each other.
EMBEDDED_NUM_CPUS = 6


def ensure_ray(num_cpus: int = EMBEDDED_NUM_CPUS) -> None:
    """Use the Ray that is there, else ``RAY_ADDRESS``, else an embedded one on loopback.

    The embedded one has ``num_cpus`` logical CPUs, no dashboard and quiet logs, and gives its
    workers one thread each for linear algebra unless ``OMP_NUM_THREADS`` says otherwise.
    """
    _quiet_data_logs()
    if ray.is_initialized():
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if os.environ.get("RAY_ADDRESS"):
        ray.init(log_to_driver=False, logging_level=logging.WARNING)
        return
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    logger.info("starting an embedded Ray with %d logical CPUs", num_cpus)
    ray.init(
        address="local",
        num_cpus=num_cpus,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        _node_ip_address="127.0.0.1",
    )
    threading.Thread(target=_end_with_the_raylet, daemon=True).start()


def _end_with_the_raylet() -> None:
    """End with one line when the embedded Ray's raylet is killed: nothing can go on without it.

    Ray itself would end the process later, or fail tasks one by one, or wait.
    """
    node = ray.worker._global_node
    (raylet,) = node.all_processes["raylet"]
    code = raylet.process.wait()
    if ray.is_initialized():  # else it was shut down
        logger.critical(
            "error: Ray's raylet ended (status %s), perhaps for lack of memory; run the same "
            "command again, it continues where it stopped",
            code,
        )
        node.kill_all_processes(check_alive=False, allow_graceful=False)
        os._exit(1)


@contextmanager
def worker_errors(*kinds: type[Exception]) -> Iterator[None]:
    """Raise a worker's own ``InputError``, ``StorageError`` or ``kinds`` without Ray's wrappers."""
    try:
        yield
    except Exception as error:
        own = _find(error, (InputError, StorageError, *kinds))
        if own is None or own is error:
            raise
        raise own from error


def _find(error: BaseException, kinds: tuple[type[Exception], ...]) -> BaseException | None:
    """The first error of ``kinds`` among those that ``error`` wraps, in its own form."""
    seen: set[int] = set()
    queue: list[object] = [error]
    while queue:
        current = queue.pop(0)
        if not isinstance(current, BaseException) or id(current) in seen:
            continue
        # Ray's own stand-in is of both classes; its message is the worker's traceback.
        if isinstance(current, kinds) and not isinstance(current, ray.exceptions.RayTaskError):
            return current
        seen.add(id(current))
        queue += (getattr(current, "worker_failures", None) or {}).values()
        queue += [current.__cause__, *(getattr(current, n, None) for n in ("cause", "_base_exc"))]
    return None


def _quiet_data_logs() -> None:
    """Our own progress lines replace Ray Data's bars and plan printouts."""
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    for name in ("ray.data", "ray.data._internal.execution.streaming_executor"):
        logging.getLogger(name).setLevel(logging.WARNING)
