import copy
import re

import pytest
import torch
from torch import nn

from i2l_model.errors import InputError
from i2l_model.lora.factors import LoraFactors, LoraTarget
from i2l_model.lora.injection import inject_lora
from tests.tiny_backbones import build_tiny, random_factors

PROMPTS = ["a red circle", "a much longer prompt about a blue house on a hill", "", "x"]


@pytest.fixture(scope="session", params=["z-image", "flux2", "flux2-dev", "hidream-o1"])
def backbone(request):
    return build_tiny(request.param)


@pytest.fixture(scope="session")
def random_lora(backbone):
    def make(num_loras=1, rank=4, seed=0, targets=None):
        return random_factors(targets or backbone.lora_targets(), num_loras, rank, seed)

    return make


@pytest.fixture(scope="session")
def batch(backbone):
    generator = torch.Generator().manual_seed(3)
    latents = backbone.noise((4, *backbone.latent_shape(64, 64)), generator)
    sigmas = torch.tensor([0.9, 0.5, 0.3, 0.7])
    return latents, sigmas, backbone.encode_prompts(PROMPTS)


def assert_same(found: torch.Tensor, wanted: torch.Tensor) -> None:
    """Within 1e-5 of the largest element, which is that of float32 sums in another order."""
    assert (found - wanted).abs().max() <= 1e-5 * max(1.0, float(wanted.abs().max()))


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
        assert_same(together[index : index + 1], alone)
    assert (together - backbone.velocity(*batch)).abs().max() > 0.01


def test_zero_lora_leaves_the_output_to_the_bit(backbone, batch, random_lora):
    lora = random_lora(2)
    zero_B = LoraFactors(lora.lora_A, lora.zeros_like().lora_B)
    assert torch.equal(backbone.velocity(*batch, zero_B), backbone.velocity(*batch))


def test_positive_only_guidance_in_one_forward(backbone, batch, random_lora):
    lora = random_lora(1)
    both = backbone.velocity(*batch, LoraFactors.concat([lora, lora.zeros_like()]))
    assert_same(both[:2], backbone.velocity(batch[0][:2], batch[1][:2], batch[2][:2], lora))
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
    linear = checkpointed.transformer.get_submodule(next(iter(lora.lora_A)))
    runs = []
    counter = linear.register_forward_hook(lambda *_: runs.append(1))
    for gradient, wanted in zip(gradients(checkpointed, batch, lora), expected, strict=True):
        torch.testing.assert_close(gradient, wanted)
    counter.remove()
    assert len(runs) == 2, "forward, and again in the backward pass"
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


def test_a_compiled_backbone_sees_every_lora_or_refuses_it(backbone, batch, random_lora):
    compiled = copy.deepcopy(backbone)
    first, second = random_lora(1, seed=1), random_lora(1, seed=2)
    block = re.match(r".+?\.\d+", backbone.lora_targets()[-1].name)
    compiled.transformer.get_submodule(block[0]).compile(backend="eager")
    with pytest.raises(InputError, match="is compiled and ignores LoRAs"):
        compiled.velocity(*batch, first)
    with torch._dynamo.config.patch(skip_nnmodule_hook_guards=False):
        for lora in (None, first, second, None):
            assert_same(compiled.velocity(*batch, lora), backbone.velocity(*batch, lora))


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
    assert_same(nested, summed)


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


def test_a_lora_of_another_backbone_is_refused(backbone, batch, random_lora):
    good = backbone.lora_targets()[0]
    parent, size = good.name.rpartition(".")[0], good.in_features
    refused = {
        LoraTarget("nowhere.to_q", size, size): "is no layer of this backbone",
        LoraTarget(parent, size, size): "not a Linear",
        LoraTarget(good.name, size, size + 1): rf"does not fit the layer \({size} -> {size}\)",
    }
    for target, message in refused.items():
        others = [other for other in (good, target) if other.name != good.name or other == target]
        with pytest.raises(InputError, match=message):
            backbone.velocity(*batch, random_lora(1, targets=others))
        assert not has_hooks(backbone.transformer)


def test_a_layer_without_batch_axis_is_refused():
    zimage = build_tiny("z-image")
    embedder = zimage.transformer.all_x_embedder["2-1"]
    target = LoraTarget("all_x_embedder.2-1", embedder.in_features, embedder.out_features)
    latents, embeds = torch.randn(1, *zimage.latent_shape(64, 64)), zimage.encode_prompts(["x"])
    with pytest.raises(InputError, match=r"must be \(B, T, I\)"):
        zimage.velocity(latents, torch.ones(1), embeds, random_factors([target]))
