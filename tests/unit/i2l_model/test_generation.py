import numpy as np
import pytest
import torch

from i2l_model.errors import InputError
from i2l_model.generation import SeededNoise, generate, sample_latents
from i2l_model.lora.factors import LoraFactors

PROMPTS = ["a red circle", "a rather long prompt about a house", "x", "a blue star"]
STEPS = 3


def latents_of(backbone, prompts=PROMPTS, *, lora=None, seeds=None, **options) -> torch.Tensor:
    seeds = list(seeds or range(len(prompts)))
    options = {"lora": lora, "seeds": seeds, "num_inference_steps": STEPS, **options}
    return sample_latents(backbone, prompts, height=64, width=64, **options)


def noise_of(backbone, seeds, height=64, width=64) -> torch.Tensor:
    return SeededNoise(seeds, backbone.latent_shape(height, width)).draw()


@pytest.fixture(scope="module")
def pipeline(backbone):
    pipeline = backbone.pipeline()
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.mark.parametrize("guidance_scale", [1.0, 3.5])
def test_latents_and_images_equal_the_pipelines(backbone, pipeline, guidance_scale):
    noise = noise_of(backbone, range(4))
    arguments = {
        "prompt": list(PROMPTS),
        "height": 64,
        "width": 64,
        "num_inference_steps": STEPS,
        "guidance_scale": guidance_scale - 1,
    }
    expected = pipeline(
        **{**arguments, "prompt": list(PROMPTS)}, latents=noise, output_type="latent"
    ).images
    found = latents_of(backbone, guidance_scale=guidance_scale)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)

    expected_images = pipeline(**{**arguments, "prompt": list(PROMPTS)}, latents=noise).images
    images = generate(
        backbone,
        PROMPTS,
        seeds=range(4),
        num_inference_steps=STEPS,
        guidance_scale=guidance_scale,
    )
    for image, wanted in zip(images, expected_images, strict=True):
        assert image.size == (64, 64)
        assert np.abs(np.asarray(image, int) - np.asarray(wanted, int)).max() <= 1


def test_a_non_square_image_equals_the_pipelines(backbone, pipeline):
    noise = noise_of(backbone, [3], 32)
    expected = pipeline(
        "x", height=32, width=64, num_inference_steps=2, guidance_scale=0, latents=noise
    ).images[0]
    (image,) = generate(backbone, ["x"], seeds=[3], num_inference_steps=2, height=32, width=64)
    assert image.size == (64, 32)
    assert np.abs(np.asarray(image, int) - np.asarray(expected, int)).max() <= 1


@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
@pytest.mark.parametrize(("num_loras", "batch_size"), [(1, 3), (2, 3), (2, 16), (4, 1), (4, 3)])
def test_batches_equal_one_image_at_a_time(
    backbone, random_lora, guidance_scale, num_loras, batch_size
):
    lora = random_lora(num_loras)
    found = latents_of(backbone, lora=lora, guidance_scale=guidance_scale, batch_size=batch_size)
    for row, prompt in enumerate(PROMPTS):
        alone = latents_of(
            backbone,
            [prompt],
            lora=lora.select([row * num_loras // 4]),
            seeds=[row],
            guidance_scale=guidance_scale,
        )
        torch.testing.assert_close(found[row : row + 1], alone, atol=1e-4, rtol=1e-3)


def by_hand(backbone, positive, negative, scale: float) -> torch.Tensor:
    """Two forwards a step with one LoRA each, for one prompt."""
    latents = noise_of(backbone, [0])
    sigmas = backbone.inference_sigmas(STEPS, 64, 64)
    embeds, empty = backbone.encode_prompts(["x"]), backbone.encode_prompts([""])
    for step in range(STEPS):
        v_pos = backbone.velocity(latents, sigmas[step : step + 1], embeds, positive)
        v_neg = backbone.velocity(latents, sigmas[step : step + 1], empty, negative)
        velocity = v_neg + scale * (v_pos - v_neg)
        latents = latents + (sigmas[step + 1] - sigmas[step]) * velocity
    return latents


@pytest.mark.parametrize("guidance", ["positive_only", "symmetric", "neutral_negative"])
def test_guidance_variants_equal_two_forwards_a_step(backbone, random_lora, guidance):
    lora, neutral = random_lora(1), random_lora(1, seed=8)
    negative = {"positive_only": None, "symmetric": lora, "neutral_negative": neutral}[guidance]
    found = latents_of(
        backbone,
        ["x"],
        lora=lora,
        guidance_scale=3.0,
        guidance=guidance,
        negative_lora=neutral if guidance == "neutral_negative" else None,
    )
    torch.testing.assert_close(found, by_hand(backbone, lora, negative, 3.0), atol=1e-4, rtol=1e-3)


def test_one_negative_lora_serves_all(backbone, random_lora):
    lora, neutral = random_lora(2), random_lora(1, seed=8)
    options = {"guidance_scale": 3.0, "guidance": "neutral_negative"}
    found = latents_of(backbone, lora=lora, negative_lora=neutral, **options)
    twice = LoraFactors.concat([neutral, neutral])
    torch.testing.assert_close(
        found, latents_of(backbone, lora=lora, negative_lora=twice, **options)
    )


def test_a_seed_gives_the_same_noise_whatever_its_neighbours(backbone):
    noise = noise_of(backbone, [5, 6, 5])
    assert torch.equal(noise[0], noise[2])
    assert not torch.equal(noise[0], noise[1])
    assert torch.equal(noise[1:2], noise_of(backbone, [6]))


def test_no_prompts_give_no_images(backbone):
    assert generate(backbone, [], seeds=[]) == []


def test_the_backbone_is_left_as_it_was(backbone, random_lora):
    before = latents_of(backbone)
    latents_of(backbone, lora=random_lora(2), guidance_scale=2.0)
    assert torch.equal(latents_of(backbone), before)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seeds": [1]}, r"seeds \(1\) must be 4"),
        ({"guidance_scale": 0.5}, "guidance_scale .* must be >= 1"),
        ({"guidance_scale": float("nan")}, "guidance_scale .* must be >= 1"),
        ({"guidance": "none"}, "use one of: positive_only, neutral_negative, symmetric"),
        ({"guidance": "neutral_negative"}, "give negative_lora with neutral_negative"),
        ({"batch_size": 0}, "batch_size"),
        ({"height": 60}, "height .* must be a positive multiple of 8"),
        ({"num_inference_steps": 0}, "num_inference_steps"),
    ],
)
def test_impossible_arguments_are_refused(backbone, change, message):
    arguments = {"seeds": range(4), "num_inference_steps": 1}
    with pytest.raises(InputError, match=message):
        generate(backbone, PROMPTS, **{**arguments, **change})


def test_one_string_is_no_list_of_prompts(backbone):
    with pytest.raises(InputError, match="give a list of prompts"):
        generate(backbone, "cat", seeds=range(3))


def test_loras_that_do_not_fit_are_refused(backbone, random_lora):
    with pytest.raises(InputError, match="must be a multiple of the 3 LoRAs"):
        generate(backbone, PROMPTS, lora=random_lora(3), seeds=range(4))
    broken = random_lora(1)
    next(iter(broken.lora_A.values()))[0, 0, 0] = float("nan")
    with pytest.raises(InputError, match="holds NaN or infinite values"):
        generate(backbone, PROMPTS, lora=broken, seeds=range(4))
