"""The Ray Train run: resources, environment and storage of the workers."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

import ray
import ray.train
import ray.train.torch

from i2l_model.errors import InputError
from jobs import storage
from jobs.cluster import worker_errors
from jobs.training.config import TrainingConfig
from jobs.training.entry import train_worker
from jobs.training.job import TrainingJob
from jobs.training.ray_storage import ray_filesystem
from jobs.training.worker_processes import WorkerProcesses

logger = logging.getLogger(__name__)

_RAY_TIMEOUT = "RAY_TRAIN_COLLECTIVE_TIMEOUT_S"


def choose_device(config: TrainingConfig) -> str:
    """Return "cpu" or "cuda", checked against what Ray has.

    Raises:
        InputError: If the workers would wait for CPUs or GPUs that are not there.
    """
    resources = ray.cluster_resources()  # type: ignore[no-untyped-call]
    num_gpus = resources.get("GPU", 0)
    device = config.device
    if device == "auto":
        device = "cuda" if num_gpus >= config.num_workers else "cpu"
    try:
        _check_resources(config, device, resources.get("CPU", 0), num_gpus)
    except InputError as error:
        if not os.environ.get("RAY_ADDRESS"):
            raise
        logger.warning("the training waits until the cluster has grown: %s", error)
    return device


def _check_resources(config: TrainingConfig, device: str, num_cpus: float, num_gpus: float) -> None:
    """Raise InputError if so many are too few for the workers and what loads their batches."""
    loading = config.loaders_per_worker * config.cpus_per_loader
    needed = config.num_workers * (config.cpus_per_worker + loading)
    if needed > num_cpus:
        problem = f"need {needed:g} CPUs, Ray has {num_cpus:g}"
        fix = "lower training.num_workers, loaders_per_worker or cpus_per_worker"
        raise InputError("training.num_workers", config.num_workers, problem, fix)
    if device == "cuda" and num_gpus < config.num_workers:
        problem = f"need a GPU each, Ray has {num_gpus:g}"
        fix = "lower training.num_workers or set training.device to cpu"
        raise InputError("training.num_workers", config.num_workers, problem, fix)


def fit_workers(job: TrainingJob) -> None:
    """Run the workers to the end; their own errors come out.

    Workers that died, or raised, are started again; what `train_worker` returns ends the run.
    """
    config = job.config
    storage_path, _, name = job.attempt_uri.rpartition("/")
    filesystem = None
    if storage.is_s3(storage_path):
        filesystem = ray_filesystem(config.storage_patience_s)
        storage_path = storage_path.removeprefix("s3://")
    environment = {"OMP_NUM_THREADS": str(config.threads_per_worker)}
    if job.device == "cpu":
        environment["DS_ACCELERATOR"] = "cpu"
    else:
        # A collective of NCCL that times out ends its process; otherwise it would be waited for.
        environment["TORCH_NCCL_ASYNC_ERROR_HANDLING"] = "1"
    trainer = ray.train.torch.TorchTrainer(
        train_worker,  # type: ignore[arg-type]  # typed as of V1, where nothing is returned
        train_loop_config=job.model_dump(mode="json"),
        torch_config=WorkerProcesses(
            backend="gloo" if job.device == "cpu" else "nccl",
            timeout_s=config.collective_timeout_s,
        ),
        scaling_config=ray.train.ScalingConfig(
            num_workers=config.worker_range,  # type: ignore[arg-type]  # typed as the class of V1
            use_gpu=job.device == "cuda",
            resources_per_worker={"CPU": config.cpus_per_worker},
        ),
        run_config=ray.train.RunConfig(  # type: ignore[call-arg]  # typed as the class of V1
            name=name,
            storage_path=storage_path,
            storage_filesystem=filesystem,
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=config.keep_last),
            failure_config=ray.train.FailureConfig(max_failures=config.max_failures),
            worker_runtime_env={"env_vars": environment},
        ),
    )
    with worker_errors(), _ray_timeout(config.collective_timeout_s):
        error = trainer.fit().return_value  # type: ignore[attr-defined]  # typed as that of V1
    if error is not None:
        raise error


@contextmanager
def _ray_timeout(timeout_s: float) -> Iterator[None]:
    """Let Ray Train's own barriers end too; it takes this from the environment alone."""
    if _RAY_TIMEOUT in os.environ:
        yield
        return
    os.environ[_RAY_TIMEOUT] = str(timeout_s)
    try:
        yield
    finally:
        del os.environ[_RAY_TIMEOUT]
