"""A torch profiler trace of a few steps, for `i2l train --profile`."""

import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch.distributed as dist
from torch.profiler import ProfilerActivity, profile, schedule

from jobs import storage
from jobs.training.job import TrainingJob
from jobs.training.patience import Report, patiently

PROFILE_FOLDER = "profile"
_SKIPPED, _WARMUP, _ACTIVE = 1, 1, 3  # steps; the first one allocates


def profiled(job: TrainingJob, steps: range, report: Report) -> Iterator[int]:
    """Give the steps, and record the first few on rank 0 where the settings ask for it.

    The trace goes to ``profile/`` of the output, for chrome://tracing or Perfetto.

    Args:
        job: The job.
        steps: The steps.
        report: Told once if the storage does not answer, and once it does again.
    """
    if not job.config.profile or dist.get_rank():
        yield from steps
        return
    activities = [ProfilerActivity.CPU]
    if job.device == "cuda":
        activities.append(ProfilerActivity.CUDA)
    name = f"steps-{steps.start + _SKIPPED + _WARMUP + 1:06d}.json.gz"

    def write(recorded: profile) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / name
            recorded.export_chrome_trace(str(path))
            target = storage.join_uri(job.output_uri, PROFILE_FOLDER, name)
            copy = partial(storage.copy_file, path, target)
            patiently(copy, f"writing {target}", job.config.storage_patience_s, report)

    plan = schedule(wait=_SKIPPED, warmup=_WARMUP, active=_ACTIVE, repeat=1)
    with profile(activities=activities, schedule=plan, on_trace_ready=write) as profiler:
        for step in steps:
            yield step
            profiler.step()
