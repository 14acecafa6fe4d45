"""Where batches come from: the cache and its hash, Ray Data, images of several shapes."""

from pathlib import Path

import pytest
import ray.data

from jobs.cluster import ensure_ray
from jobs.training.caching import prepare_inputs
from jobs.training.config import TrainingConfig
from jobs.training.feed import BatchFeed
from jobs.training.inputs import open_loader
from tests.integration.training_process import assert_same_predictor
from tests.integration.training_world import Recording, World, history, losses
from tests.pair_shards import write_pairs

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def whole(world: World, trained: object) -> Path:
    return world.folder / "whole"


def test_batches_that_ray_data_loads_train_the_same(world: World, whole: Path) -> None:
    world.train("ray-data", loaders_per_worker=1)
    assert_same_predictor(world.folder / "ray-data", whole, atol=1e-6)


def test_ray_data_loads_in_order_and_leaves_its_settings_to_others(
    world: World, trained: object
) -> None:
    ensure_ray()
    before = ray.data.DataContext.get_current()
    inputs = prepare_inputs(
        world.config, str(world.pairs), str(world.folder), None, "cpu", Recording()
    )
    feeds = []
    for loaders in (1, 0):
        config = world.config.model_copy(update={"loaders_per_worker": loaders, "steps": 6})
        loader = open_loader(inputs, config, "train", ref_size=64, target_size=64)
        feeds.append(BatchFeed(inputs, config, loader, rank=0, world_size=1))
    for step in range(6):
        loaded, expected = (feed.get(step, 0) for feed in feeds)
        assert ray.data.DataContext.get_current() is before
        assert loaded.keys() == expected.keys()
        assert all(tensor.equal(expected[name]) for name, tensor in loaded.items())
    with pytest.raises(StopIteration):
        feeds[0].get(6, 0)


def test_encoding_every_step_trains_the_same(world: World, whole: Path) -> None:
    world.train("online", cache=False, num_workers=1)
    assert losses(world.folder / "online") == pytest.approx(losses(whole), rel=1e-3)


def test_images_of_several_shapes_train_together(world: World) -> None:
    pairs = write_pairs(world.folder / "wide", wide=("circle", "bar"))
    output = world.folder / "wide-output"
    world.train(
        output.name, pairs=pairs, aspect_buckets=((64, 64), (96, 64)), steps=6, num_workers=1
    )
    record = history(output)
    assert record["steps"] == 6
    assert record["complete_epochs"] == 6 * world.config.styles_per_step // 6


def prepared(world: World, config: TrainingConfig, pairs: Path) -> tuple[dict[str, str], set[str]]:
    """What is cached, and which stages had something to do."""
    recording = Recording()
    inputs = prepare_inputs(config, str(pairs), str(world.folder), None, "cpu", recording)
    return inputs.cached, {stage for stage, *_ in recording.updates}


def test_the_cache_is_used_again_until_something_it_depends_on_changes(
    world: World, trained: object
) -> None:
    ensure_ray()
    config = world.config
    first, stages = prepared(world, config, world.pairs)
    assert first.keys() == {"latents", "prompts", "tokens"}
    assert stages == {"index pairs"}  # the training has encoded all

    towers = config.predictor.encoder.model_copy(update={"hidden_size": 16})
    other = config.predictor.model_copy(update={"encoder": towers})
    changed, stages = prepared(world, config.model_copy(update={"predictor": other}), world.pairs)
    assert stages == {"index pairs", "encode tokens"}
    assert changed["latents"] == first["latents"]
    assert changed["tokens"] != first["tokens"]

    more = write_pairs(world.folder / "more", train_styles=3)
    third, stages = prepared(world, config, more)
    assert "encode latents" in stages
    assert not set(third.values()) & set(first.values())


def test_a_stopped_cache_stage_goes_on_with_what_is_missing(world: World, trained: object) -> None:
    ensure_ray()
    config = world.config.model_copy(
        update={"cache_uri": str(world.folder / "again"), "encode_batch_size": 2}
    )
    cached, _ = prepared(world, config, world.pairs)
    folder = Path(cached["latents"])
    chunks = sorted(folder.glob("*.safetensors"))
    assert len(chunks) == 4  # 28 targets, 8 a chunk
    contents = [chunk.read_bytes() for chunk in chunks]
    kept = chunks[0].stat().st_mtime_ns
    chunks[2].unlink()
    (folder / "rows.json").unlink()
    prepared(world, config, world.pairs)
    assert [chunk.read_bytes() for chunk in chunks] == contents
    assert chunks[0].stat().st_mtime_ns == kept
