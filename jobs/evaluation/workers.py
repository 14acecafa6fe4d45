"""Runs chunks in this process or on Ray actors that load the models once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import ray
import torch

from jobs.cluster import ensure_ray, worker_errors
from jobs.evaluation.chunk import ChunkEvaluation, ChunkPlan
from jobs.evaluation.chunk_files import write_chunk
from jobs.evaluation.config import EvaluationConfig
from jobs.evaluation.models import EvaluationModels, load_models


@dataclass(frozen=True, slots=True)
class Work:
    """What all chunks share.

    Attributes:
        config: What to measure.
        predictor_uri: Predictor folder.
        output_uri: Where chunk files and samples go.
        subjects: Every content of the evaluation, for the choice of the reader.
        inputs_hash: Marks the chunk files.
    """

    config: EvaluationConfig
    predictor_uri: str
    output_uri: str
    subjects: frozenset[str]
    inputs_hash: str


class ChunkWorker:
    """Evaluates chunks and writes their files; holds the models between chunks."""

    def __init__(self, work: Work, num_threads: int | None = None) -> None:
        if num_threads is not None:
            torch.set_num_threads(num_threads)
        self.work = work

    @cached_property
    def models(self) -> EvaluationModels:
        """Loaded with the first chunk: an error in an actor's constructor loses its message."""
        return load_models(self.work.config, self.work.predictor_uri, self.work.subjects)

    def evaluate(self, plan: ChunkPlan) -> int:
        """Evaluate one chunk and write its files; returns its index."""
        result = ChunkEvaluation(plan, self.models, self.work.config).run()
        write_chunk(self.work.output_uri, plan.index, result, inputs_hash=self.work.inputs_hash)
        return plan.index


def run_chunks(plans: Sequence[ChunkPlan], work: Work, on_done: Callable[[int], None]) -> None:
    """Evaluate all chunks; `on_done` is called with the number of finished ones."""
    if not plans:
        return
    if work.config.num_workers == 0:
        worker = ChunkWorker(work)
        for number, plan in enumerate(plans, start=1):
            worker.evaluate(plan)
            on_done(number)
        return
    ensure_ray()
    _run_on_actors(plans, work, on_done)


def _run_on_actors(plans: Sequence[ChunkPlan], work: Work, on_done: Callable[[int], None]) -> None:
    config = work.config
    remote_class: Any = ray.remote(ChunkWorker).options(
        num_cpus=config.cpus_per_worker,
        num_gpus=config.gpus_per_worker,
    )
    num_actors = min(config.num_workers, len(plans))
    idle = [remote_class.remote(work, config.threads_per_worker) for _ in range(num_actors)]
    actors = list(idle)
    running: dict[Any, Any] = {}
    waiting = list(plans)
    num_done = 0
    try:
        while waiting or running:
            while waiting and idle:
                actor = idle.pop()
                running[actor.evaluate.remote(waiting.pop(0))] = actor
            finished, _ = ray.wait(list(running), num_returns=1)
            for reference in finished:
                idle.append(running.pop(reference))
                with worker_errors():
                    ray.get(reference)
                num_done += 1
                on_done(num_done)
    finally:
        for actor in actors:
            ray.kill(actor)
