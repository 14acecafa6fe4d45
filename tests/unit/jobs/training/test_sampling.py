from collections import Counter

import numpy as np
import pytest
import torch

from i2l_model.backbones import Backbone
from jobs.training.buckets import Buckets
from jobs.training.config import TrainingConfig
from jobs.training.noise import draw_noise, fixed_noise
from jobs.training.pair_index import NO_REF, PairIndex
from jobs.training.sampling import StyleSampler
from jobs.training.sigma_bands import SigmaBand

LATENT = (8, 16, 16)


def test_a_step_does_not_depend_on_the_steps_before(
    index: PairIndex, buckets: Buckets, config: TrainingConfig
) -> None:
    straight, resumed = StyleSampler(index, buckets, config), StyleSampler(index, buckets, config)
    batches = [straight.batch(step, range(4)) for step in range(6)]
    again = resumed.batch(5, range(4))
    assert np.array_equal(batches[5].refs_NF, again.refs_NF)
    assert np.array_equal(batches[5].targets_NK, again.targets_NK)


def test_workers_together_see_the_batch_of_one_worker(
    index: PairIndex, buckets: Buckets, config: TrainingConfig, backbone: Backbone
) -> None:
    sampler = StyleSampler(index, buckets, config)
    whole = sampler.batch(3, range(4))
    parts = [sampler.batch(3, range(2)), sampler.batch(3, range(2, 4))]
    assert np.array_equal(whole.refs_NF, np.concatenate([part.refs_NF for part in parts]))
    assert np.array_equal(whole.targets_NK, np.concatenate([part.targets_NK for part in parts]))
    noise = [draw_noise(backbone, config, (3, *LATENT), 3, slot) for slot in (1, 2, 1)]
    assert torch.equal(noise[0].noise_KChw, noise[2].noise_KChw)
    assert torch.equal(noise[0].sigmas_K, noise[2].sigmas_K)
    assert not torch.equal(noise[0].noise_KChw, noise[1].noise_KChw)


def test_every_style_comes_once_an_epoch(
    index: PairIndex, buckets: Buckets, config: TrainingConfig
) -> None:
    sampler = StyleSampler(index, buckets, config)
    styles = [style for step in range(3) for style in sampler.batch(step, range(4)).styles_N]
    assert Counter(styles) == dict.fromkeys(range(6), 2)
    assert styles[:6] != styles[6:]


def test_every_pair_of_a_style_has_its_turn_before_one_comes_again(
    index: PairIndex, buckets: Buckets, config: TrainingConfig
) -> None:
    num_styles, num_pairs = len(index.styles), len(index.style_pairs[0])
    assert num_pairs > 1
    assert all(len(pairs) == num_pairs for pairs in index.style_pairs)
    config = config.model_copy(update={"min_refs": config.max_refs})  # tells the pairs apart
    drawn: list[list[tuple[int, ...]]] = [[] for _ in index.styles]
    for step in range(2 * num_pairs * num_styles // config.styles_per_step):  # two rounds
        batch = StyleSampler(index, buckets, config).batch(step, range(config.styles_per_step))
        for n, style in enumerate(batch.styles_N):
            refs, own_target = batch.refs_NF[n], batch.targets_NK[n, 0]
            drawn[style].append((int(own_target), *sorted(refs[refs != NO_REF].tolist())))
    for style, pairs in enumerate(index.style_pairs):
        expected = Counter(
            (int(index.pair_targets_P[pair]), *sorted(set(index.pair_refs_PF[pair]) - {NO_REF}))
            for pair in pairs
        )
        first, second = drawn[style][:num_pairs], drawn[style][num_pairs:]
        assert Counter(first) == Counter(second) == expected
    assert any(rows[:num_pairs] != rows[num_pairs:] for rows in drawn)


def test_the_number_of_references_varies_within_its_bounds(
    index: PairIndex, buckets: Buckets, config: TrainingConfig
) -> None:
    sampler = StyleSampler(index, buckets, config.model_copy(update={"min_refs": 2}))
    widths = {sampler.batch(step, range(4)).refs_NF.shape[1] for step in range(30)}
    assert widths == {2, 3}


def test_references_and_targets_share_the_style_but_not_the_content(
    index: PairIndex, buckets: Buckets, config: TrainingConfig
) -> None:
    sampler = StyleSampler(index, buckets, config)
    head_of_ref = dict(
        zip(index.pair_refs_PF.ravel(), index.pair_ref_heads_PF.ravel(), strict=True)
    )
    rows_of_style = [set(index.pair_refs_PF[pairs].ravel()) for pairs in index.style_pairs]
    for step in range(20):
        batch = sampler.batch(step, range(4))
        for style, refs, targets in zip(
            batch.styles_N, batch.refs_NF, batch.targets_NK, strict=True
        ):
            present = refs[refs != NO_REF]
            assert set(present) <= rows_of_style[style]
            assert set(targets) <= set(index.style_targets[style])
            shown = {head_of_ref[row] for row in present}
            assert not shown & set(index.target_heads_U[targets])


def test_a_style_with_few_targets_repeats_them(
    index: PairIndex, buckets: Buckets, config: TrainingConfig
) -> None:
    sampler = StyleSampler(index, buckets, config.model_copy(update={"targets_per_style": 9}))
    assert sampler.batch(0, range(4)).targets_NK.shape == (4, 9)


def test_a_sigma_band_takes_its_share_of_the_noise_levels(
    backbone: Backbone, config: TrainingConfig
) -> None:
    def sigmas(step: int, *bands: SigmaBand) -> torch.Tensor:
        focused = config.model_copy(update={"sigma_focus": bands})
        return draw_noise(backbone, focused, (2000, *LATENT), step, 0).sigmas_K

    own = sigmas(0)
    assert float(own.min()) < 0.3
    high = SigmaBand(low=0.7, high=1, share=1)
    everything_high = sigmas(0, high)
    assert float(everything_high.min()) >= 0.7
    assert float(everything_high.max()) <= 1
    assert 0.83 < float(everything_high.mean()) < 0.87
    half = sigmas(0, high.model_copy(update={"share": 0.5}))
    own_above = float((own >= 0.7).float().mean())
    assert float((half >= 0.7).float().mean()) == pytest.approx(0.5 + 0.5 * own_above, abs=0.04)
    low = SigmaBand(low=0.1, high=0.2, share=1)
    assert float(sigmas(0, high, low).min()) >= 0.7
    assert float(sigmas(config.steps - 1, high, low).max()) <= 0.2


def test_validation_noise_is_always_the_same(backbone: Backbone) -> None:
    first, again, other = (fixed_noise(backbone, seed, 4, LATENT) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
