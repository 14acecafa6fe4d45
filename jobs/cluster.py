"""Joining or starting the Ray cluster that jobs run on."""

import logging
import os

import ray

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


def _quiet_data_logs() -> None:
    """Our own progress lines replace Ray Data's bars and plan printouts."""
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    for name in ("ray.data", "ray.data._internal.execution.streaming_executor"):
        logging.getLogger(name).setLevel(logging.WARNING)
