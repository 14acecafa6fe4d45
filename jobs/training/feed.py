"""Batches ahead of the training: loaded in threads of the worker, or by Ray Data on any node."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from safetensors.torch import load, save

from jobs.training.config import TrainingConfig
from jobs.training.inputs import TrainingInputs, open_loader
from jobs.training.loading import BatchLoader, Loaded
from jobs.training.sampling import StyleSampler

_SEGMENT = 20_000  # passes of one dataset; the next one begins when it is used up
_BLOCK = 4  # passes of one Ray task


class BatchFeed:
    """Gives this rank the batch of each forward pass, in order; reads ahead.

    Which styles a pass holds depends on the step alone, so that a feed may start anywhere, and no
    rank ever has fewer passes than another.

    Args:
        inputs: Where the data lie.
        config: Batch sizes, and how to read ahead.
        loader: Loads in this process.
        rank: This worker's number.
        world_size: Number of workers.
    """

    def __init__(
        self,
        inputs: TrainingInputs,
        config: TrainingConfig,
        loader: BatchLoader,
        rank: int,
        world_size: int,
    ) -> None:
        self._inputs = inputs
        self._config = config
        self._loader = loader
        self._sampler = StyleSampler(loader.index, loader.buckets, config)  # of the reading thread
        self._rank, self._world_size = rank, world_size
        self._next = -1
        self._loaded: Iterator[Loaded] = iter(())

    def slots(self, position: int) -> tuple[int, range]:
        """Step and styles of a pass; passes are counted from the start of the training."""
        return pass_slots(self._config, position, self._rank, self._world_size)

    def get(self, step: int, micro: int) -> Loaded:
        """The batch of a pass; another than the next one starts anew there."""
        position = step * self._config.gradient_accumulation_steps + micro
        if position != self._next:
            self._loaded = self._from(position)
        self._next = position + 1
        return next(self._loaded)

    def _from(self, first: int) -> Iterator[Loaded]:
        last = self._config.steps * self._config.gradient_accumulation_steps
        if self._config.loaders_per_worker:
            for start in range(first, last, _SEGMENT):
                yield from self._in_ray(start, min(last, start + _SEGMENT))
        else:
            yield from self._in_thread(first, last)

    def _in_thread(self, first: int, last: int) -> Iterator[Loaded]:
        def load_pass(position: int) -> Loaded:
            return self._loader.load(self._sampler.batch(*self.slots(position)))

        pending: deque[Future[Loaded]] = deque()
        with ThreadPoolExecutor(1, thread_name_prefix="feed") as thread:
            try:
                for position in range(first, last):
                    pending.append(thread.submit(load_pass, position))
                    if len(pending) > self._config.prefetch:
                        yield pending.popleft().result()
                while pending:
                    yield pending.popleft().result()
            finally:
                for future in pending:
                    future.cancel()

    def _in_ray(self, first: int, last: int) -> Iterator[Loaded]:
        for batch in self._batches(first, last):
            yield load(batch["loaded"][0])

    def _batches(self, first: int, last: int) -> Iterable[Any]:
        """Passes that Ray Data loads; only this data set is made under the settings for it."""
        import ray.data

        context = ray.data.DataContext.get_current().copy()
        context.execution_options.preserve_order = True
        context.enable_progress_bars = context.print_on_execution_start = False
        with ray.data.DataContext.current(context):
            num_blocks = -(-(last - first) // _BLOCK)
            dataset = ray.data.range(last - first, override_num_blocks=num_blocks).map_batches(
                LoadPasses,  # type: ignore[arg-type]
                fn_constructor_args=(self._inputs, self._config, self._loader.sizes),
                fn_kwargs={"first": first, "rank": self._rank, "world_size": self._world_size},
                batch_size=1,
                num_cpus=self._config.cpus_per_loader,
                compute=ray.data.ActorPoolStrategy(size=self._config.loaders_per_worker),
            )
        return dataset.iter_batches(batch_size=1, prefetch_batches=self._config.prefetch)


class LoadPasses:
    """Ray Data stage: from the number of a pass to its batch, as the bytes of a safetensors file.

    Args:
        inputs: Where the data lie.
        config: Batch sizes.
        sizes: Of references and targets, as `open_loader` takes them.
    """

    def __init__(
        self, inputs: TrainingInputs, config: TrainingConfig, sizes: dict[str, int]
    ) -> None:
        torch.set_num_threads(1)
        self._config = config
        self._loader = open_loader(inputs, config, "train", **sizes)
        self._sampler = StyleSampler(self._loader.index, self._loader.buckets, config)

    def __call__(
        self, batch: dict[str, np.ndarray], first: int, rank: int, world_size: int
    ) -> dict[str, list[bytes]]:
        """Load the passes of a block."""
        places = (
            pass_slots(self._config, first + int(number), rank, world_size)
            for number in batch["id"]
        )
        return {"loaded": [save(self._loader.load(self._sampler.batch(*p))) for p in places]}


def pass_slots(
    config: TrainingConfig, position: int, rank: int, world_size: int
) -> tuple[int, range]:
    """Step and styles of a rank's pass, counted from the start of the training."""
    step, micro = divmod(position, config.gradient_accumulation_steps)
    return step, config.slots(micro * world_size + rank, world_size)
