"""FLUX.2: equal to diffusers' own pipelines in every step."""

import numpy as np
import pytest
import torch

from i2l_model.errors import InputError
from i2l_model.generation import SeededNoise, generate, sample_latents
from tests.tiny_backbones import build_tiny

PROMPTS = ["a red circle", "a much longer prompt about a blue house on a hill"]
STEPS = 3


def test_a_prompt_that_is_too_long_is_cut_with_a_warning(caplog):
    backbone = build_tiny("flux2")
    long = "a house " * 200
    backbone.encode_prompts(["a house"])
    assert not caplog.records
    backbone.encode_prompts([long])
    assert f"is cut to {backbone.max_prompt_tokens} tokens" in caplog.text


@pytest.fixture(scope="module", params=["flux2", "flux2-dev"])
def backbone(request):
    return build_tiny(request.param)


@pytest.fixture
def pipeline(backbone):
    pipeline = backbone.pipeline()
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def text_arguments(backbone) -> dict:
    return {
        "max_sequence_length": backbone.max_prompt_tokens,
        "text_encoder_out_layers": backbone.text_layers,
    }


def test_prompt_embeds_equal_the_pipelines(backbone, pipeline):
    expected, _ = pipeline.encode_prompt(PROMPTS, **text_arguments(backbone))
    assert torch.equal(torch.stack(backbone.encode_prompts(PROMPTS)), expected)
    assert expected.shape == (2, 64, 48)


@pytest.mark.parametrize(
    ("num_layers", "expected"), [(36, (9, 18, 27)), (40, (10, 20, 30)), (4, (1, 2, 3))]
)
def test_text_layers_are_the_released_ones(backbone, monkeypatch, num_layers, expected):
    config = backbone.text_encoder.config
    config = getattr(config, "text_config", config)
    monkeypatch.setattr(config, "num_hidden_layers", num_layers)
    assert backbone.text_layers == expected


def test_latents_equal_the_pipelines_and_decode_back(backbone, pipeline):
    images = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0)) * 2 - 1
    latents = backbone.encode_images(images)
    assert latents.shape == (2, *backbone.latent_shape(64, 96)) == (2, 128, 4, 6)
    torch.testing.assert_close(latents, pipeline._encode_vae_image(images, None))
    cells = backbone.vae.encode(images).latent_dist.mode()
    decoded = backbone.vae.decode(cells, return_dict=False)[0]
    torch.testing.assert_close(backbone.decode_latents(latents), decoded, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "theirs", "ours"), [("flux2", 1.0, 1.0), ("flux2", 3.5, 3.5), ("flux2-dev", 3.5, 1.0)]
)
def test_latents_and_images_equal_the_pipelines(name, theirs, ours):
    backbone = build_tiny(name)
    pipeline = backbone.pipeline()
    pipeline.set_progress_bar_config(disable=True)
    expected = pipeline(
        prompt=PROMPTS,
        height=64,
        width=64,
        num_inference_steps=STEPS,
        guidance_scale=theirs,  # dev is told its scale and runs once
        latents=SeededNoise([0, 1], backbone.latent_shape(64, 64)).draw(),
        output_type="np",
        **text_arguments(backbone),
    ).images
    found = generate(
        backbone, PROMPTS, seeds=[0, 1], num_inference_steps=STEPS, guidance_scale=ours
    )
    assert np.abs(np.stack(found) / 255 - expected).max() <= 1 / 255
    assert expected.std() > 0.05


def test_sigmas_equal_the_pipelines(backbone, pipeline):
    pipeline(
        prompt=PROMPTS[0],
        height=64,
        width=96,
        num_inference_steps=5,
        output_type="latent",
        **text_arguments(backbone),
    )
    torch.testing.assert_close(backbone.inference_sigmas(5, 64, 96), pipeline.scheduler.sigmas)
    with pytest.raises(InputError, match="must be >= 1"):
        backbone.inference_sigmas(0, 64, 64)


def test_velocity_is_noise_minus_data_at_sigma(backbone):
    latents = torch.randn(1, *backbone.latent_shape(64, 96))
    embeds, sigma = backbone.encode_prompts(["x"]), torch.tensor([0.3])
    rows, columns = torch.meshgrid(torch.arange(4), torch.arange(6), indexing="ij")
    zero = torch.zeros(24, dtype=torch.long)
    image_ids = torch.stack([zero, rows.flatten(), columns.flatten(), zero], 1)
    text_ids = torch.zeros(64, 4, dtype=torch.long)
    text_ids[:, 3] = torch.arange(64)
    guided = backbone.transformer.config.guidance_embeds
    expected = backbone.transformer(
        hidden_states=latents.flatten(2).mT,
        encoder_hidden_states=embeds[0][None],
        timestep=sigma,
        img_ids=image_ids,
        txt_ids=text_ids,
        guidance=torch.tensor([backbone.embedded_guidance]) if guided else None,
    ).sample
    found = backbone.velocity(latents, sigma, embeds)
    torch.testing.assert_close(found.flatten(2).mT, expected)


def test_training_sigmas_follow_the_exponential_shift(backbone):
    drawn = backbone.sample_sigmas(20_000, torch.Generator().manual_seed(0))
    assert float(drawn.min()) > 0
    assert float(drawn.max()) <= 1
    shift = torch.e**0.8
    uniform = drawn / (shift - (shift - 1) * drawn)
    places = torch.linspace(0.1, 0.9, 9)
    torch.testing.assert_close(uniform.quantile(places), places, atol=0.02, rtol=0)


def test_everything_is_frozen_and_apart_from_the_pipeline(backbone, pipeline):
    for module in (backbone.transformer, backbone.vae, backbone.text_encoder):
        assert not any(parameter.requires_grad for parameter in module.parameters())
        assert not any(part.training for part in module.modules())
    assert pipeline.transformer is backbone.transformer
    assert pipeline.scheduler is not backbone.scheduler


def test_sizes_that_do_not_fit_are_refused(backbone):
    with pytest.raises(InputError, match="must be a positive multiple of 16"):
        backbone.latent_shape(64, 72)


def test_a_seed_gives_the_same_latents_in_every_batch(backbone):
    both = sample_latents(backbone, PROMPTS, seeds=[1, 2], num_inference_steps=2)
    alone = sample_latents(backbone, PROMPTS[1:], seeds=[2], num_inference_steps=2)
    torch.testing.assert_close(both[1:], alone, atol=1e-5, rtol=1e-4)
