import copy

import pytest
import torch
from torch import nn

from i2l_model.errors import InputError
from i2l_model.lora.factors import LoraFactors, LoraTarget
from i2l_model.lora.injection import inject_lora

PROMPTS = ["a red circle", "a much longer prompt about a blue house on a hill", "", "x"]


@pytest.fixture(scope="module")
def batch(backbone):
    generator = torch.Generator().manual_seed(3)
    latents = torch.randn(4, 8, 16, 16, generator=generator)
    sigmas = torch.tensor([0.9, 0.5, 0.3, 0.7])
    return latents, sigmas, backbone.encode_prompts(PROMPTS)


def merged(backbone, lora: LoraFactors):
    """A copy of the backbone with the weights of one LoRA added."""
    copied = copy.deepcopy(backbone)
    for name in lora.lora_A:
        copied.transformer.get_submodule(name).weight.data += lora.delta(name)[0]
    return copied


def row(batch, index: int):
    latents, sigmas, embeds = batch
    return latents[index : index + 1], sigmas[index : index + 1], [embeds[index]]


def has_hooks(module: nn.Module) -> bool:
    return any(child._forward_hooks for child in module.modules())


@pytest.mark.parametrize("num_loras", [1, 2, 4])
def test_batched_loras_equal_merged_weights_one_at_a_time(backbone, batch, random_lora, num_loras):
    lora = random_lora(num_loras)
    together = backbone.velocity(*batch, lora)
    for index in range(4):
        alone = merged(backbone, lora.select([index * num_loras // 4])).velocity(*row(batch, index))
        torch.testing.assert_close(together[index : index + 1], alone, atol=1e-5, rtol=1e-4)
    assert (together - backbone.velocity(*batch)).abs().max() > 0.01


def test_zero_lora_leaves_the_output_to_the_bit(backbone, batch, random_lora):
    lora = random_lora(2)
    zero_B = LoraFactors(lora.lora_A, lora.zeros_like().lora_B)
    assert torch.equal(backbone.velocity(*batch, zero_B), backbone.velocity(*batch))


def test_positive_only_guidance_in_one_forward(backbone, batch, random_lora):
    lora = random_lora(1)
    both = backbone.velocity(*batch, LoraFactors.concat([lora, lora.zeros_like()]))
    torch.testing.assert_close(
        both[:2], backbone.velocity(batch[0][:2], batch[1][:2], batch[2][:2], lora)
    )
    torch.testing.assert_close(
        both[2:], backbone.velocity(batch[0][2:], batch[1][2:], batch[2][2:])
    )


def gradients(backbone, batch, lora: LoraFactors, autocast: bool = False):
    factors = [*lora.lora_A.values(), *lora.lora_B.values()]
    leaves = [factor.detach().clone().requires_grad_() for factor in factors]
    half = len(leaves) // 2
    names = list(lora.lora_A)
    fresh = LoraFactors(
        dict(zip(names, leaves[:half], strict=True)), dict(zip(names, leaves[half:], strict=True))
    )
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        loss = backbone.velocity(*batch, fresh).float().square().mean()
    return torch.autograd.grad(loss, leaves)


def test_gradients_reach_every_factor_and_no_weight(backbone, batch, random_lora):
    found = gradients(backbone, batch, random_lora(2))
    assert all(torch.isfinite(gradient).all() and gradient.abs().max() > 0 for gradient in found)
    assert all(parameter.grad is None for parameter in backbone.transformer.parameters())


def test_gradient_checkpointing_gives_the_same_gradients(backbone, batch, random_lora):
    lora = random_lora(2)
    expected = gradients(backbone, batch, lora)
    checkpointed = copy.deepcopy(backbone)
    checkpointed.enable_gradient_checkpointing()
    assert checkpointed.transformer.gradient_checkpointing
    for gradient, wanted in zip(gradients(checkpointed, batch, lora), expected, strict=True):
        torch.testing.assert_close(gradient, wanted)
    assert not has_hooks(checkpointed.transformer)


def test_recomputation_uses_the_lora_of_its_forward_not_the_active_one(
    backbone, batch, random_lora
):
    lora, other = random_lora(2), random_lora(2, seed=9)
    expected = gradients(backbone, batch, lora)[0]
    checkpointed = copy.deepcopy(backbone)
    checkpointed.enable_gradient_checkpointing()
    leaf = next(iter(lora.lora_A.values())).clone().requires_grad_()
    lora = LoraFactors({**lora.lora_A, next(iter(lora.lora_A)): leaf}, lora.lora_B)
    loss = checkpointed.velocity(*batch, lora).square().mean()
    with inject_lora(checkpointed.transformer, other):
        inside = checkpointed.velocity(*batch)
        (gradient,) = torch.autograd.grad(loss, leaf)
        again = checkpointed.velocity(*batch)
    torch.testing.assert_close(gradient, expected)
    torch.testing.assert_close(again, inside)
    assert not has_hooks(checkpointed.transformer)


def test_autocast_stays_close_and_differentiable(backbone, batch, random_lora):
    lora = random_lora(2)
    exact = gradients(backbone, batch, lora)
    rough = gradients(backbone, batch, lora, autocast=True)
    for wanted, found in zip(exact, rough, strict=True):
        assert found.dtype == torch.float32
        assert torch.cosine_similarity(wanted.flatten(), found.flatten(), dim=0) > 0.95


def test_half_precision_backbone_takes_float32_factors(backbone, batch, random_lora):
    half = copy.deepcopy(backbone)
    half.transformer.to(torch.bfloat16)
    velocity = half.velocity(*batch, random_lora(1))
    assert velocity.dtype == torch.float32
    exact = backbone.velocity(*batch, random_lora(1))
    assert torch.cosine_similarity(velocity.flatten(), exact.flatten(), dim=0) > 0.99


def test_nested_injections_add_up(backbone, batch, random_lora):
    first, second = random_lora(1, seed=1), random_lora(1, seed=2)
    with inject_lora(backbone.transformer, first):
        nested = backbone.velocity(*batch, second)
    summed = backbone.velocity(*batch, LoraFactors.concat([first, second]).fuse([1, 1]))
    torch.testing.assert_close(nested, summed, atol=1e-5, rtol=1e-4)


def test_nothing_stays_behind_after_an_exception(backbone, batch, random_lora):
    before = backbone.velocity(*batch)
    with (
        pytest.raises(RuntimeError, match="stop"),
        inject_lora(backbone.transformer, random_lora(1)),
    ):
        raise RuntimeError("stop")
    with pytest.raises(InputError, match="multiple of the 3 LoRAs"):
        backbone.velocity(*batch, random_lora(3))
    assert not has_hooks(backbone.transformer)
    assert torch.equal(backbone.velocity(*batch), before)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (LoraTarget("layers.9.attention.to_q", 48, 48), "is no layer of this backbone"),
        (LoraTarget("layers.0.attention", 48, 48), "is a Attention, not a Linear"),
        (LoraTarget("layers.0.attention.to_q", 48, 64), r"does not fit the layer \(48 -> 48\)"),
    ],
)
def test_a_lora_of_another_backbone_is_refused(backbone, batch, random_lora, target, message):
    good = backbone.lora_targets()[0]
    lora = random_lora(1, targets=[good, target])
    with pytest.raises(InputError, match=message):
        backbone.velocity(*batch, lora)
    assert not has_hooks(backbone.transformer)


def test_a_layer_without_batch_axis_is_refused(backbone, batch, random_lora):
    embedder = backbone.transformer.all_x_embedder["2-1"]
    target = LoraTarget("all_x_embedder.2-1", embedder.in_features, embedder.out_features)
    with pytest.raises(InputError, match=r"must be \(B, T, I\)"):
        backbone.velocity(*batch, random_lora(1, targets=[target]))
