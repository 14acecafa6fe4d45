import pytest
import torch

from i2l_model.errors import InputError
from i2l_model.lora.factors import LoraFactors, LoraTarget

NAMES = ("layers.0.attention.to_q", "layers.1.feed_forward.w2")


def test_shapes_are_reported(random_lora, backbone):
    lora = random_lora(3, rank=2)
    assert (lora.num_loras, lora.rank) == (3, 2)
    assert lora.targets == backbone.lora_targets()
    assert lora.delta(NAMES[1]).shape == (3, 48, 128)


def test_scaling_scales_the_update(random_lora):
    lora = random_lora(2)
    for name in NAMES:
        torch.testing.assert_close(lora.scaled(-0.5).delta(name), -0.5 * lora.delta(name))


def test_select_repeats_and_reorders(random_lora):
    lora = random_lora(3)
    chosen = lora.select([2, 0, 0])
    assert torch.equal(chosen.lora_A[NAMES[0]], lora.lora_A[NAMES[0]][[2, 0, 0]])
    assert torch.equal(chosen.lora_B[NAMES[0]], lora.lora_B[NAMES[0]][[2, 0, 0]])


def test_concat_inverts_select(random_lora):
    lora = random_lora(3)
    again = LoraFactors.concat([lora.select([0]), lora.select([1, 2])])
    assert all(torch.equal(again.delta(name), lora.delta(name)) for name in NAMES)


def test_concat_refuses_other_layers_and_ranks(random_lora, backbone):
    lora = random_lora(1)
    for other in (random_lora(1, rank=2), random_lora(1, targets=backbone.lora_targets()[:3])):
        with pytest.raises(InputError, match="differ in layers, ranks or shapes"):
            LoraFactors.concat([lora, other])


def test_fusion_is_the_exact_weighted_sum(random_lora):
    lora = random_lora(3, rank=2)
    weights = [0.5, -1.0, 2.0]
    fused = lora.fuse(weights)
    assert (fused.num_loras, fused.rank) == (1, 6)
    for name in NAMES:
        expected = sum(w * delta for w, delta in zip(weights, lora.delta(name), strict=True))
        torch.testing.assert_close(fused.delta(name)[0], expected, atol=1e-5, rtol=0)


def test_fusion_needs_a_weight_for_each_lora(random_lora):
    with pytest.raises(InputError, match=r"weights \(\[1.0\]\) must be 2 numbers"):
        random_lora(2).fuse([1.0])


def test_reranking_is_exact_at_the_true_rank_and_optimal_below(random_lora):
    lora = random_lora(2, rank=2)
    wide = lora.fuse([1.0, 1.0])
    for name in NAMES:
        back = wide.reranked(4)
        torch.testing.assert_close(back.delta(name), wide.delta(name), atol=1e-5, rtol=0)
        best = wide.reranked(2)
        U, S, Vh = torch.linalg.svd(wide.delta(name))
        truncated = (U[..., :2] * S[:, None, :2]) @ Vh[:, :2]
        assert best.lora_A[name].shape[1] == 2
        torch.testing.assert_close(best.delta(name), truncated, atol=1e-5, rtol=0)


def test_zeros_like_changes_nothing(random_lora):
    zeros = random_lora(2).zeros_like()
    assert zeros.num_loras == 2
    assert not zeros.delta(NAMES[0]).any()


def test_to_and_detach(random_lora):
    lora = random_lora(1)
    lora.lora_A[NAMES[0]].requires_grad_()
    half = lora.to(dtype=torch.bfloat16)
    assert half.lora_B[NAMES[1]].dtype == torch.bfloat16
    assert half.lora_A[NAMES[0]].requires_grad
    assert not half.detach().lora_A[NAMES[0]].requires_grad


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("side", ["lora_A", "lora_B"])
def test_missing_values_are_refused(random_lora, side, value):
    lora = random_lora(2)
    getattr(lora, side)[NAMES[1]][1, 0, 0] = value
    with pytest.raises(InputError, match=rf"{NAMES[1]}.{side}\) holds NaN or infinite values"):
        lora.check_finite()


@pytest.mark.parametrize(
    ("shape_A", "shape_B"),
    [((2, 4), (1, 6, 2)), ((1, 2, 4), (2, 6, 2)), ((1, 2, 4), (1, 6, 3)), ((2, 2, 4), (2, 6, 2))],
)
def test_factors_that_do_not_fit_are_refused(shape_A, shape_B):
    good = (torch.ones(1, 2, 4), torch.ones(1, 6, 2))
    with pytest.raises(InputError, match="lora 'x'"):
        LoraFactors(
            {"good": good[0], "x": torch.ones(shape_A)}, {"good": good[1], "x": torch.ones(shape_B)}
        )


def test_unpaired_factors_are_refused():
    with pytest.raises(InputError, match="no pair of factors"):
        LoraFactors({"x": torch.ones(1, 2, 4)}, {})
    with pytest.raises(InputError, match="no pair of factors"):
        LoraFactors({}, {})


def test_targets_compare_by_value():
    assert LoraTarget("a", 1, 2) == LoraTarget("a", 1, 2)
