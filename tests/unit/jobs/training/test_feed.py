from pathlib import Path

import pytest
import torch

from i2l_model.errors import InputError
from jobs.training.config import TrainingConfig
from jobs.training.feed import BatchFeed
from jobs.training.inputs import TrainingInputs
from jobs.training.loading import BatchLoader, Loaded
from jobs.training.sampling import StyleSampler


@pytest.fixture
def feed(inputs: TrainingInputs, config: TrainingConfig, loader: BatchLoader) -> BatchFeed:
    config = config.model_copy(update={"gradient_accumulation_steps": 2})
    return BatchFeed(inputs, config, loader, rank=0, world_size=1)


def assert_same(left: Loaded, right: Loaded) -> None:
    assert left.keys() == right.keys()
    assert all(torch.equal(tensor, right[name]) for name, tensor in left.items())


def test_every_pass_gets_its_own_batch(
    feed: BatchFeed, loader: BatchLoader, config: TrainingConfig
) -> None:
    sampler = StyleSampler(loader.index, loader.buckets, config)
    for step in range(3):
        for micro, slots in enumerate((range(2), range(2, 4))):
            assert_same(feed.get(step, micro), loader.load(sampler.batch(step, slots)))


def test_a_feed_may_start_anywhere(feed: BatchFeed) -> None:
    straight = [feed.get(step, micro) for step in range(4) for micro in range(2)]
    assert_same(feed.get(2, 1), straight[5])
    assert_same(feed.get(3, 0), straight[6])
    assert_same(feed.get(0, 0), straight[0])


def test_the_last_pass_ends_it(feed: BatchFeed, config: TrainingConfig) -> None:
    feed.get(config.steps - 1, 1)
    with pytest.raises(StopIteration):
        feed.get(config.steps, 0)


def test_an_image_that_is_gone_stops_the_training_by_name(
    feed: BatchFeed, loader: BatchLoader, tmp_path: Path
) -> None:
    loader.index.shards[:] = [str(tmp_path / "gone.tar")]
    with pytest.raises(InputError, match=r"gone\.tar"):
        feed.get(0, 0)
