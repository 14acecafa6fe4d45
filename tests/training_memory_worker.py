"""One training worker as a process of its own, without Ray: prints the memory that it took.

Usage: python -m tests.training_memory_worker DEVICE CONFIG INPUTS OUTPUT RANK WORLD_SIZE RENDEZVOUS
"""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any


def main(
    device: str,
    config: str,
    inputs: str,
    output: str,
    rank: str,
    world_size: str,
    rendezvous: str,
) -> None:
    os.environ["LOCAL_RANK"] = rank
    used_before = _gpu_bytes() if device == "cuda" else 0
    import ray.train
    import torch.distributed as dist

    from jobs.registry.tracking import TrackingConfig
    from jobs.training import checkpointing, worker
    from jobs.training.config import TrainingConfig
    from jobs.training.inputs import TrainingInputs
    from jobs.training.job import TrainingJob
    from jobs.training.trainer import Trainer

    stepped = threading.Event()
    train_step = Trainer.train_step

    def counted(trainer: Trainer, step: int) -> None:
        train_step(trainer, step)
        stepped.set()

    def report(_: Any, *, checkpoint: Any, checkpoint_upload_fn: Any, **__: Any) -> None:
        def upload() -> None:  # to slow storage: a step is made meanwhile
            stepped.wait()
            checkpoint_upload_fn(checkpoint, "")

        stepped.clear()
        threading.Thread(target=upload, daemon=True).start()

    Trainer.train_step = counted
    ray.train.report = report
    ray.train.get_preemption_info = lambda: None
    checkpointing.ray_checkpoint = str
    dist.init_process_group(
        "gloo" if device == "cpu" else "nccl",
        init_method=f"file://{rendezvous}",
        rank=int(rank),
        world_size=int(world_size),
    )
    job = TrainingJob(
        config=TrainingConfig.model_validate_json(config),
        inputs=TrainingInputs.model_validate_json(inputs),
        output_uri=output,
        tracking=TrackingConfig(uri=f"sqlite:///{output}-mlflow.db"),
        device=device,
        init_uri=None,
        attempt_uri=f"{output}/attempt",
        origin={"key": "k", "run_id": "r"},
    )
    worker.Recorder = _SilentRecorder
    worker.train(job.model_dump(mode="json"))
    print(json.dumps(_resident() if device == "cpu" else _on_gpu(used_before)))


def _resident() -> dict[str, int]:
    return {"process": _high_water_mark()}


def _on_gpu(used_before: int) -> dict[str, int]:
    """The most bytes of tensors, of the allocator's blocks, and of the process with its context.

    Args:
        used_before: Bytes that others used on the GPU.
    """
    import torch

    torch.cuda.synchronize()
    outside = _gpu_bytes() - used_before - torch.cuda.memory_reserved()
    reserved = torch.cuda.max_memory_reserved()
    return {
        "process": reserved + outside,
        "reserved": reserved,
        "tensors": torch.cuda.max_memory_allocated(),
    }


def _gpu_bytes() -> int:
    """Bytes in use on the first GPU, read without making a context on it."""
    command = ["nvidia-smi", "--id=0", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    return int(subprocess.check_output(command, text=True)) << 20


def _high_water_mark() -> int:
    """The most resident bytes so far; getrusage would give the parent's where those are more."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return 1024 * int(line.split()[1])
    raise RuntimeError("no VmHWM in /proc/self/status")


class _SilentRecorder:
    def __init__(self, *_: Any) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: None


if __name__ == "__main__":
    main(*sys.argv[1:])
