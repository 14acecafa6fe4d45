import copy
import logging

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, ZImageTransformer2DModel

from i2l_model.errors import InputError

PROMPTS = ["a red circle", "", "a much longer prompt, with ünïcödé and\na line break"]


def test_prompt_embeds_equal_the_pipelines(backbone):
    ours = backbone.encode_prompts(PROMPTS)
    theirs, _ = backbone.pipeline().encode_prompt(list(PROMPTS), do_classifier_free_guidance=False)
    for embeds, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(embeds, expected, atol=1e-5, rtol=0)
    assert len(ours[2]) > len(ours[0]) > len(ours[1]) > 0


def test_a_prompt_has_the_same_embeds_in_every_batch(backbone):
    together = backbone.encode_prompts([*PROMPTS, PROMPTS[0]])
    for prompt, embeds in zip([*PROMPTS, PROMPTS[0]], together, strict=True):
        torch.testing.assert_close(embeds, backbone.encode_prompts([prompt])[0], atol=1e-5, rtol=0)
    assert backbone.encode_prompts([]) == []


def test_many_prompts_are_encoded_in_parts(backbone, monkeypatch):
    expected = backbone.encode_prompts(PROMPTS)
    monkeypatch.setattr("i2l_model.backbones.zimage._PROMPTS_PER_FORWARD", 2)
    for embeds, wanted in zip(backbone.encode_prompts(PROMPTS), expected, strict=True):
        torch.testing.assert_close(embeds, wanted, atol=1e-5, rtol=0)


def test_a_prompt_that_exceeds_the_captions_length_is_cut_with_a_warning(backbone, caplog):
    with caplog.at_level(logging.WARNING):
        (embeds,) = backbone.encode_prompts(["x" * 600])
    assert len(embeds) == backbone.max_prompt_tokens == 224
    assert "cut to 224 tokens" in caplog.text
    latents = torch.zeros(1, 8, 16, 16)
    assert torch.isfinite(backbone.velocity(latents, torch.ones(1), [embeds])).all()


def test_velocity_is_the_transformers_output_in_the_projects_convention(backbone):
    latents = torch.randn(2, 8, 16, 16, generator=torch.Generator().manual_seed(0))
    embeds = backbone.encode_prompts(PROMPTS[:2])
    sigmas = torch.tensor([0.2, 0.9])
    raw = backbone.transformer(
        list(latents.unsqueeze(2)), torch.tensor([0.8, 0.1]), embeds, return_dict=False
    )[0]
    found = backbone.velocity(latents, sigmas, embeds)
    assert found.shape == latents.shape
    torch.testing.assert_close(found, -torch.stack(raw).squeeze(2))


def test_batched_velocity_equals_one_at_a_time(backbone):
    latents = torch.randn(3, 8, 16, 16, generator=torch.Generator().manual_seed(0))
    sigmas, embeds = torch.tensor([0.1, 0.5, 1.0]), backbone.encode_prompts(PROMPTS)
    together = backbone.velocity(latents, sigmas, embeds)
    for row in range(3):
        alone = backbone.velocity(latents[row : row + 1], sigmas[row : row + 1], [embeds[row]])
        torch.testing.assert_close(together[row : row + 1], alone, atol=1e-5, rtol=1e-4)


def test_disagreeing_batch_sizes_are_refused(backbone):
    embeds = backbone.encode_prompts(["x"])
    with pytest.raises(InputError, match="is not of one size"):
        backbone.velocity(torch.zeros(2, 8, 16, 16), torch.ones(2), embeds)
    with pytest.raises(InputError, match="is not of one size"):
        backbone.velocity(torch.zeros(1, 8, 16, 16), torch.ones(2), embeds)


def test_targets_are_the_seven_linears_of_every_block(backbone):
    targets = backbone.lora_targets()
    names = {target.name for target in targets}
    assert len(targets) == len(names) == 7 * 4
    assert {name.split(".")[0] for name in names} == {"layers", "noise_refiner", "context_refiner"}
    assert not any("adaLN" in name for name in names)
    for target in targets:
        weight = backbone.transformer.get_submodule(target.name).weight
        assert tuple(weight.shape) == (target.out_features, target.in_features)


def test_targets_of_the_released_size(backbone):
    with torch.device("meta"):
        transformer = ZImageTransformer2DModel()
    released = copy.copy(backbone)
    released.transformer = transformer
    targets = released.lora_targets()
    assert len(targets) == 238
    assert sum(target.in_features + target.out_features for target in targets) == 2_480_640


def test_everything_is_frozen_and_in_eval_mode(backbone):
    for module in (backbone.transformer, backbone.vae, backbone.text_encoder):
        assert not any(parameter.requires_grad for parameter in module.parameters())
        assert not any(part.training for part in module.modules())


def test_latents_are_scaled_deterministic_and_decode_as_the_pipeline_does(backbone):
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    latents = backbone.encode_images(images)
    assert latents.shape == (2, *backbone.latent_shape(64, 64)) == (2, 8, 16, 16)
    assert torch.equal(latents, backbone.encode_images(images))
    mode = backbone.vae.encode(images).latent_dist.mode()
    torch.testing.assert_close(latents, (mode - 0.1159) * 0.3611)
    decoded = backbone.decode_latents(latents)
    assert decoded.shape == images.shape
    torch.testing.assert_close(decoded, backbone.vae.decode(mode).sample, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("size", [(60, 64), (64, 4), (0, 64)])
def test_sizes_that_do_not_fit_the_latents_are_refused(backbone, size):
    with pytest.raises(InputError, match=r"must be a positive multiple of 8"):
        backbone.latent_shape(*size)
    with pytest.raises(InputError, match=r"must be a positive multiple of 8"):
        backbone.encode_images(torch.zeros(1, 3, *size))


def test_sides_beyond_the_transformers_positions_are_refused(backbone):
    assert backbone.latent_shape(512, 512)[1:] == (128, 128)
    with pytest.raises(InputError, match=r"width \(1024\) must be at most 512"):
        backbone.latent_shape(64, 1024)


def test_training_sigmas_follow_the_static_shift(backbone):
    sigmas = backbone.sample_sigmas(20000, torch.Generator().manual_seed(0))
    assert sigmas.dtype == torch.float32
    assert 0 < sigmas.min() < 0.01
    assert 0.999 < sigmas.max() <= 1
    # shift 3 sends the median .5 to 3 * .5 / (1 + 2 * .5)
    assert sigmas.median().item() == pytest.approx(0.75, abs=0.01)
    again = backbone.sample_sigmas(20000, torch.Generator().manual_seed(0))
    assert torch.equal(sigmas, again)


@pytest.mark.parametrize("dynamic", [False, True])
def test_inference_sigmas_equal_the_pipelines(backbone, dynamic):
    copied = copy.copy(backbone)
    copied.scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=dynamic)
    pipeline = copied.pipeline()
    pipeline.set_progress_bar_config(disable=True)
    pipeline("x", height=64, width=64, num_inference_steps=5, output_type="latent")
    sigmas = copied.inference_sigmas(5, 64, 64)
    torch.testing.assert_close(sigmas, pipeline.scheduler.sigmas)
    assert sigmas[0] == 1
    assert sigmas[-1] == 0


def test_no_steps_are_refused(backbone):
    with pytest.raises(InputError, match=r"num_inference_steps \(0\) must be >= 1"):
        backbone.inference_sigmas(0, 64, 64)


def test_pipeline_shares_the_modules_and_keeps_the_scheduler_apart(backbone):
    pipeline = backbone.pipeline()
    assert pipeline.transformer is backbone.transformer
    assert pipeline.vae is backbone.vae
    assert pipeline.scheduler is not backbone.scheduler
