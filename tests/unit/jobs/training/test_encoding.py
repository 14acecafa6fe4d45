"""Loading and encoding a batch: from the shards, from the cache, at several sizes."""

from pathlib import Path

import numpy as np
import pytest
import torch

from i2l_model.backbones import Backbone
from jobs.training import caching
from jobs.training.buckets import Buckets, assign_buckets
from jobs.training.config import TrainingConfig
from jobs.training.encoding import EncodedBatch, encode_batch, supervise
from jobs.training.inputs import TrainingInputs, open_loader
from jobs.training.loading import LATENTS, PROMPTS, TOKENS, BatchLoader
from jobs.training.models import build_predictor
from jobs.training.noise import GroupNoise, draw_noise
from jobs.training.objective import StyleObjective
from jobs.training.row_files import chunk_uri, complete_rows
from jobs.training.sampling import StyleSampler
from tests.training_inputs import encode_inputs

SIZES = {"ref_size": 32, "target_size": 64}


@pytest.fixture
def cached(
    inputs: TrainingInputs,
    config: TrainingConfig,
    backbone: Backbone,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> TrainingInputs:
    monkeypatch.setattr(caching, "load_frozen_encoders", lambda *_: backbone)
    config = config.model_copy(update={"encode_batch_size": 3})
    return encode_inputs(inputs, config, tmp_path, (LATENTS, PROMPTS, TOKENS))


def noise_of(backbone: Backbone, config: TrainingConfig, encoded: EncodedBatch) -> list[GroupNoise]:
    return [
        draw_noise(backbone, config, data.shape, 0, slot) for slot, data in enumerate(encoded.data)
    ]


def test_what_is_cached_equals_what_is_encoded_every_step(
    inputs: TrainingInputs, cached: TrainingInputs, backbone: Backbone, config: TrainingConfig
) -> None:
    predictor = build_predictor(config, backbone, None)
    for name, parameter in predictor.named_parameters():
        if name.endswith("up"):
            torch.nn.init.normal_(parameter, std=0.2)
    objective = StyleObjective(predictor, backbone)
    found = []
    for given in (inputs, cached):
        loader = open_loader(given, config, "train", **SIZES)
        batch = StyleSampler(loader.index, loader.buckets, config).batch(3, range(4))
        loaded = loader.load(batch)
        assert ("ref_tokens.0" in loaded) == (given is cached)
        assert (loaded["targets.0"].dtype == torch.uint8) == (given is inputs)
        encoded = encode_batch(backbone, loader.index, batch, loaded)
        noise = noise_of(backbone, config, encoded)
        found.append((encoded, objective(encoded.references, supervise(encoded, noise))))
    (online, online_loss), (kept, kept_loss) = found
    for left, right in zip(online.data, kept.data, strict=True):
        torch.testing.assert_close(left, right, atol=1e-4, rtol=1e-4)
    for left, right in zip(online.prompt_embeds, kept.prompt_embeds, strict=True):
        torch.testing.assert_close(left, right, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(online_loss, kept_loss, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("left", [-1, 20, 0])
def test_a_damaged_chunk_of_the_cache_is_encoded_again(
    cached: TrainingInputs,
    config: TrainingConfig,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    left: int,
) -> None:
    config = config.model_copy(update={"encode_batch_size": 3})
    folders = cached.cached.values()
    chunks = [Path(chunk_uri(folder, 0)) for folder in folders]
    whole = [chunk.read_bytes() for chunk in chunks]
    other = Path(chunk_uri(cached.cached[LATENTS], 1))
    kept = other.stat().st_mtime_ns
    for chunk, data in zip(chunks, whole, strict=True):
        chunk.write_bytes(data[:left])
    assert not any(complete_rows(folder) for folder in folders)
    encode_inputs(cached, config, tmp_path, (LATENTS, PROMPTS, TOKENS))
    assert [chunk.read_bytes() for chunk in chunks] == whole
    assert all(complete_rows(folder) for folder in folders)
    assert other.stat().st_mtime_ns == kept
    assert caplog.text.count("encoded again") == 3


def test_targets_go_to_the_bucket_nearest_in_shape(loader: BatchLoader) -> None:
    places = loader.index.targets
    places.widths_U[:3] = [128, 64, 90]
    places.heights_U[:3] = [64, 128, 100]
    buckets = assign_buckets(places, [(64, 64), (96, 64), (64, 96)])
    assert [buckets.size(row) for row in range(4)] == [(96, 64), (64, 96), (64, 64), (64, 64)]


def test_sizes_of_a_batch_do_not_mix(
    loader: BatchLoader, backbone: Backbone, config: TrainingConfig
) -> None:
    style_of_target = np.arange(len(loader.index.targets)) // 4
    buckets = Buckets([(64, 64), (96, 64)], style_of_target % 2)
    mixed = BatchLoader(loader.index, SIZES, buckets, {})
    sampler = StyleSampler(loader.index, buckets, config)
    objective = StyleObjective(build_predictor(config, backbone, None), backbone)
    several = 0
    for step in range(4):
        batch = sampler.batch(step, range(4))
        encoded = encode_batch(backbone, loader.index, batch, mixed.load(batch))
        noise = noise_of(backbone, config, encoded)
        parts = supervise(encoded, noise)
        several += len(parts) > 1
        assert sorted(n for members, _ in parts for n in members) == [0, 1, 2, 3]
        losses = objective(encoded.references, parts)
        for n in range(4):  # alone, each style has the loss that it has in the batch
            own = batch.part(n)
            alone = encode_batch(backbone, loader.index, own, mixed.load(own))
            loss = objective(alone.references, supervise(alone, [noise[n]]))
            torch.testing.assert_close(loss[0], losses[n], atol=1e-5, rtol=1e-5)
    assert several


def test_a_step_prefers_one_bucket(loader: BatchLoader, config: TrainingConfig) -> None:
    buckets = Buckets([(64, 64), (96, 64)], loader.index.target_heads_U % 2)
    # With one reference, every style has targets of both buckets left.
    sampler = StyleSampler(loader.index, buckets, config.model_copy(update={"max_refs": 1}))
    seen = set()
    for step in range(12):
        batch = sampler.batch(step, range(4))
        numbers = buckets.numbers_U[batch.targets_NK]
        assert (numbers == numbers[:, :1]).all()  # one size a style
        assert len(set(numbers[:, 0].tolist())) == 1
        seen.add(int(numbers[0, 0]))
    assert seen == {0, 1}


def test_missing_references_stay_out(
    loader: BatchLoader, backbone: Backbone, config: TrainingConfig
) -> None:
    batch = StyleSampler(loader.index, loader.buckets, config).batch(0, range(2))
    batch.refs_NF[0, 1:] = -1
    encoded = encode_batch(backbone, loader.index, batch, loader.load(batch))
    images = encoded.references.images_NF3SS
    assert images is not None
    assert not images[0, 1:].any()
    assert encoded.references.mask_NF[0].tolist() == [True] + [False] * (images.shape[1] - 1)
    torch.testing.assert_close(images[1, 0], loader.ref_images([int(batch.refs_NF[1, 0])])[0])
