from collections import Counter

import numpy as np
import torch

from i2l_model.backbones import Backbone
from jobs.training.config import TrainingConfig
from jobs.training.data import NO_REF, PairStore
from jobs.training.sampling import StyleSampler, draw_noise, fixed_noise

LATENT = (8, 16, 16)


def test_a_step_does_not_depend_on_the_steps_before(
    store: PairStore, config: TrainingConfig
) -> None:
    straight, resumed = StyleSampler(store, config), StyleSampler(store, config)
    batches = [straight.batch(step, range(4)) for step in range(6)]
    again = resumed.batch(5, range(4))
    assert np.array_equal(batches[5].refs_NF, again.refs_NF)
    assert np.array_equal(batches[5].targets_NK, again.targets_NK)


def test_workers_together_see_the_batch_of_one_worker(
    store: PairStore, config: TrainingConfig, backbone: Backbone
) -> None:
    sampler = StyleSampler(store, config)
    whole = sampler.batch(3, range(4))
    parts = [sampler.batch(3, range(2)), sampler.batch(3, range(2, 4))]
    assert np.array_equal(whole.refs_NF, np.concatenate([part.refs_NF for part in parts]))
    assert np.array_equal(whole.targets_NK, np.concatenate([part.targets_NK for part in parts]))
    noise = draw_noise(backbone, config, LATENT, 3, range(4))
    halves = [draw_noise(backbone, config, LATENT, 3, slots) for slots in (range(2), range(2, 4))]
    assert torch.equal(noise.noise_BChw, torch.cat([half.noise_BChw for half in halves]))
    assert torch.equal(noise.sigmas_B, torch.cat([half.sigmas_B for half in halves]))


def test_every_style_comes_once_an_epoch(store: PairStore, config: TrainingConfig) -> None:
    sampler = StyleSampler(store, config)
    styles = [style for step in range(3) for style in sampler.batch(step, range(4)).styles_N]
    assert Counter(styles) == dict.fromkeys(range(6), 2)
    assert styles[:6] != styles[6:]


def test_the_number_of_references_varies_within_its_bounds(
    store: PairStore, config: TrainingConfig
) -> None:
    sampler = StyleSampler(store, config.model_copy(update={"min_refs": 2}))
    widths = {sampler.batch(step, range(4)).refs_NF.shape[1] for step in range(30)}
    assert widths == {2, 3}


def test_references_and_targets_share_the_style_but_not_the_content(
    store: PairStore, config: TrainingConfig
) -> None:
    sampler = StyleSampler(store, config)
    head_of_ref = dict(
        zip(store.pair_refs_PF.ravel(), store.pair_ref_heads_PF.ravel(), strict=True)
    )
    rows_of_style = [set(store.pair_refs_PF[pairs].ravel()) for pairs in store.style_pairs]
    for step in range(20):
        batch = sampler.batch(step, range(4))
        for style, refs, targets in zip(
            batch.styles_N, batch.refs_NF, batch.targets_NK, strict=True
        ):
            present = refs[refs != NO_REF]
            assert set(present) <= rows_of_style[style]
            assert set(targets) <= set(store.style_targets[style])
            shown = {head_of_ref[row] for row in present}
            assert not shown & set(store.target_heads_U[targets])


def test_a_style_with_few_targets_repeats_them(store: PairStore, config: TrainingConfig) -> None:
    sampler = StyleSampler(store, config.model_copy(update={"targets_per_style": 9}))
    assert sampler.batch(0, range(4)).targets_NK.shape == (4, 9)


def test_high_sigma_fraction_moves_the_noise_levels(
    backbone: Backbone, config: TrainingConfig
) -> None:
    config = config.model_copy(update={"targets_per_style": 500})
    own = draw_noise(backbone, config, LATENT, 0, range(1)).sigmas_B
    config = config.model_copy(update={"high_sigma_fraction": 1.0})
    high = draw_noise(backbone, config, LATENT, 0, range(1)).sigmas_B
    assert float(own.min()) < 0.3
    assert float(high.min()) >= 0.7
    assert float(high.max()) <= 1
    assert 0.83 < float(high.mean()) < 0.87
    falling = config.model_copy(update={"final_high_sigma_fraction": 0.0})
    last = draw_noise(backbone, falling, LATENT, config.steps - 1, range(1)).sigmas_B
    assert float(last.min()) < 0.3


def test_validation_noise_is_always_the_same() -> None:
    assert torch.equal(fixed_noise(3, 4, LATENT), fixed_noise(3, 4, LATENT))
    assert not torch.equal(fixed_noise(3, 4, LATENT), fixed_noise(4, 4, LATENT))
