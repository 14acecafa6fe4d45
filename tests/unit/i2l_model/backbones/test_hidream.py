"""HiDream-O1: the released checkpoint's layout, and the sequence it is fed."""

import copy
import json
import re
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from diffusers import UniPCMultistepScheduler
from safetensors.torch import load_file

from i2l_model.backbones import load_backbone
from i2l_model.backbones.hidream_o1.layout import attention_mask, position_ids
from i2l_model.backbones.tiny_hidream import build_tiny_hidream
from i2l_model.errors import InputError
from i2l_model.flow import add_noise, flow_loss
from i2l_model.generation import SeededNoise, sample_latents
from tests.tiny_backbones import build_tiny

LAYER = r"model\.language_model\.layers\.[01]\."
# released key -> shape at the tiny size: dim 64, feed-forward 128, head 16, two key-value heads
PUBLISHED = {
    r"model\.t_embedder1\.mlp\.0\.weight": (64, 256),
    r"model\.t_embedder1\.mlp\.2\.weight": (64, 64),
    r"model\.t_embedder1\.mlp\.[02]\.bias": (64,),
    r"model\.x_embedder\.proj1\.weight": (16, 3072),
    r"model\.x_embedder\.proj2\.weight": (64, 16),
    r"model\.x_embedder\.proj2\.bias": (64,),
    r"model\.final_layer2\.linear\.weight": (3072, 64),
    r"model\.final_layer2\.linear\.bias": (3072,),
    r"model\.language_model\.embed_tokens\.weight": (268, 64),
    LAYER + r"self_attn\.[qo]_proj\.weight": (64, 64),
    LAYER + r"self_attn\.[kv]_proj\.weight": (32, 64),
    LAYER + r"self_attn\.[qk]_norm\.weight": (16,),
    LAYER + r"(input|post_attention)_layernorm\.weight": (64,),
    LAYER + r"mlp\.(gate|up)_proj\.weight": (128, 64),
    LAYER + r"mlp\.down_proj\.weight": (64, 128),
    r"model\.language_model\.norm\.weight": (64,),
    r"lm_head\.weight": (268, 64),
}


@pytest.fixture(scope="module")
def backbone():
    return build_tiny("hidream-o1")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "HiDream-O1-Image"
    build_tiny_hidream(0, folder)
    return folder


def test_a_checkpoint_of_the_released_layout_loads_whole(backbone, folder: Path):
    weights = load_file(folder / "model.safetensors")
    ours = {key: tuple(t.shape) for key, t in weights.items() if ".visual." not in key}
    for key, shape in ours.items():
        assert [s for p, s in PUBLISHED.items() if re.fullmatch(p, key)] == [shape], key
    for pattern in PUBLISHED:
        assert any(re.fullmatch(pattern, key) for key in ours), pattern
    config = json.loads((folder / "config.json").read_text())
    config["architectures"] = ["Qwen3VLForConditionalGeneration"]
    config["vision_config"]["model_type"] = "qwen3_vl"
    rope = config["text_config"].pop("rope_parameters")
    config["text_config"]["rope_theta"] = rope.pop("rope_theta")
    config["text_config"]["rope_scaling"] = rope
    (folder / "config.json").write_text(json.dumps(config))
    loaded = load_backbone(folder)
    rotary = loaded.transformer.language_model.rotary_emb
    assert torch.equal(rotary.inv_freq, backbone.transformer.language_model.rotary_emb.inv_freq)
    assert not loaded.dev


def test_prompts_become_a_chat_turn_that_ends_with_the_time_slot(backbone):
    ids, empty, space = backbone.encode_prompts(["a star", "", " "])
    text = "<|im_start|>user\na star<|im_end|>\n<|im_start|>assistant\n<|boi_token|><|tms_token|>"
    assert backbone.tokenizer.decode(ids) == text
    assert ids.dtype == torch.long
    assert torch.equal(empty, space)
    with pytest.raises(InputError, match="tokens, above 4096; shorten it"):
        backbone.encode_prompts(["x" * 5000])


def test_mask_is_causal_in_text_and_open_from_time_and_image():
    mask = attention_mask(torch.tensor([3, 2]), num_slots=3, num_patches=2)[:, 0]
    whole = [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], *[[1, 1, 1, 1, 1]] * 3]
    padded = [[1, 0, 0, 0, 0], [0, 1, 0, 0, 0], *[[0, 1, 1, 1, 1]] * 3]
    assert mask.int().tolist() == [whole, padded]


def test_positions_count_the_text_and_start_the_image_at_4096():
    found = position_ids(torch.tensor([3, 2]), num_slots=3, grid=(2, 2))
    assert found.shape == (3, 2, 7)
    rows, columns = [4096, 4096, 4097, 4097], [4096, 4097, 4096, 4097]
    assert found[:, 0].tolist() == [[0, 1, 2, *image] for image in ([4096] * 4, rows, columns)]
    assert found[:, 1, 1:3].tolist() == [[0, 1]] * 3
    assert torch.equal(found[:, 1, 3:], found[:, 0, 3:])


def hidden_states(backbone, ids: torch.Tensor, patches: torch.Tensor, time: float) -> torch.Tensor:
    """What the language model makes of one sequence, (S, D)."""
    caught = []
    norm = backbone.transformer.language_model.norm
    handle = norm.register_forward_hook(lambda _m, _i, output: caught.append(output[0]))
    backbone.transformer.predict_patches(
        patches, torch.tensor([time]), ids[None], torch.tensor([len(ids)]), (2, 2)
    )
    handle.remove()
    return caught[0]


@torch.no_grad()
def test_text_reads_the_text_before_it_and_the_image_reads_everything(backbone):
    (ids,) = backbone.encode_prompts(["a star"])
    num_text = len(ids) - 1
    patches = torch.randn(1, 4, 3072, generator=torch.Generator().manual_seed(0))
    before = hidden_states(backbone, ids, patches, 0.5)
    changed = patches.clone()
    changed[0, 3] += 1

    def moved(other: torch.Tensor) -> list[bool]:
        return (other - before).abs().amax(1).gt(1e-6).tolist()

    assert moved(hidden_states(backbone, ids, changed, 0.5)) == [False] * num_text + [True] * 5
    assert moved(hidden_states(backbone, ids, patches, 0.7)) == [False] * num_text + [True] * 5
    later = ids.clone()
    later[num_text - 2] += 1
    expected = [False] * (num_text - 2) + [True] * 7
    assert moved(hidden_states(backbone, later, patches, 0.5)) == expected


def test_velocity_is_the_closed_form_of_the_predicted_image(backbone):
    copied = copy.copy(backbone)
    image = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    noise = backbone.noise((2, 3, 64, 64), torch.Generator().manual_seed(1))
    assert 7.5 < float(noise.std()) < 8.5
    sigmas = torch.tensor([0.3, 0.9])
    patches = torch.nn.functional.pixel_unshuffle(image, 32).flatten(2).mT
    first = image[0, :, :32, 32:].flatten()  # channel by channel, the second patch of the first row
    assert torch.equal(patches[0, 1], first)
    given = {}

    class Knowing:
        def __getattr__(self, name):
            return getattr(backbone.transformer, name)

        def predict_patches(self, patches, times, ids, num_ids, grid):
            given.update(times=times, grid=grid)
            return torch.nn.functional.pixel_unshuffle(image, 32).flatten(2).mT

    copied.transformer = Knowing()
    velocity = copied.velocity(
        add_noise(image, noise, sigmas), sigmas, backbone.encode_prompts(["a", "b"])
    )
    torch.testing.assert_close(velocity, noise - image, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(given["times"], 1 - sigmas)
    assert given["grid"] == (2, 2)


def test_weighted_velocity_error_is_the_images_error(backbone):
    image, noise = torch.rand(3, 3, 64, 64), torch.randn(3, 3, 64, 64)
    sigmas = torch.tensor([0.05, 0.5, 1.0])
    noisy = add_noise(image, noise, sigmas)
    predicted = image + 0.1
    velocity = (noisy - predicted) / sigmas.view(-1, 1, 1, 1)
    loss = flow_loss(velocity, image, noise, backbone.loss_weights(sigmas))
    torch.testing.assert_close(loss, torch.full((3,), 0.01), rtol=1e-3, atol=1e-6)


def test_unequal_prompts_in_one_batch_equal_separate_calls(backbone):
    latents = backbone.noise((2, 3, 64, 96), torch.Generator().manual_seed(0))
    sigmas = torch.tensor([0.9, 0.4])
    embeds = backbone.encode_prompts(["a long prompt about a blue house on a hill", ""])
    together = backbone.velocity(latents, sigmas, embeds)
    apart = [backbone.velocity(latents[i][None], sigmas[i][None], [embeds[i]]) for i in range(2)]
    assert (together - torch.cat(apart)).abs().max() <= 1e-5 * together.abs().max()


@pytest.mark.parametrize("cast", [lambda m: m.to(torch.bfloat16), lambda m: m.bfloat16()])
def test_rotary_frequencies_stay_exact_in_bfloat16(backbone, cast):
    exact = backbone.transformer.language_model.rotary_emb.inv_freq
    model = cast(copy.deepcopy(backbone.transformer))
    rotary = model.language_model.rotary_emb
    assert rotary.inv_freq.dtype == rotary.original_inv_freq.dtype == torch.float32
    assert torch.equal(rotary.inv_freq, exact)
    assert model.x_embedder.proj2.weight.dtype == torch.bfloat16


def test_steps_are_those_of_diffusers_unipc(backbone):
    scheduler = UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    )
    scheduler.set_timesteps(6)
    noise = SeededNoise([5], (3, 64, 64)).draw()
    latents, embeds = 8 * noise, backbone.encode_prompts(["x"])
    for timestep in scheduler.timesteps:
        velocity = backbone.velocity(latents, timestep[None].float() / 1000, embeds)
        latents = scheduler.step(velocity, timestep, latents).prev_sample
    found = sample_latents(backbone, ["x"], seeds=[5], num_inference_steps=6)
    torch.testing.assert_close(found, latents, atol=1e-5, rtol=1e-5)


def test_unipc_takes_more_steps_than_it_has_distinct_timesteps(backbone):
    latents = sample_latents(backbone, ["x"], seeds=[5], num_inference_steps=340)
    assert torch.isfinite(latents).all()


def test_guidance_of_a_distilled_model_is_warned_of(caplog):
    dev = build_tiny("hidream-o1-dev")
    sample_latents(dev, ["x"], seeds=[5], num_inference_steps=1)
    assert not caplog.records
    sample_latents(dev, ["x"], seeds=[5], num_inference_steps=1, guidance_scale=2.0)
    assert "is distilled and meant to draw without guidance" in caplog.text


def test_dev_steps_over_its_levels_with_noise_of_each_images_own():
    dev = build_tiny("hidream-o1-dev")
    levels = dev.inference_sigmas(28, 64, 64)
    assert (len(levels), float(levels[0]), float(levels[-2]), float(levels[-1])) == (
        29, pytest.approx(0.999), pytest.approx(0.008), 0.0,
    )  # fmt: skip
    assert dev.noise_scale == 7.5
    both = sample_latents(dev, ["a", "b"], seeds=[1, 2], num_inference_steps=4)
    alone = sample_latents(dev, ["b"], seeds=[2], num_inference_steps=4)
    torch.testing.assert_close(both[1:], alone, atol=1e-4, rtol=1e-4)
    noise = SeededNoise([2], (3, 64, 64))
    latents, embeds = 7.5 * noise.draw(), dev.encode_prompts(["b"])
    sigmas = dev.inference_sigmas(4, 64, 64)
    for sigma, following in pairwise(sigmas):
        image = latents - sigma * dev.velocity(latents, sigma[None], embeds)
        if following > 0:
            drawn = noise.draw()
            limit = 2.5 * float(drawn.std())
            image = (1 - following) * image + following * 7.5 * drawn.clamp(-limit, limit)
        latents = image
    torch.testing.assert_close(alone, latents, atol=1e-4, rtol=1e-4)
    with pytest.raises(InputError, match="must be at most 28"):
        dev.inference_sigmas(29, 64, 64)


def test_what_does_not_fit_is_refused(backbone):
    with pytest.raises(InputError, match="must be a positive multiple of 32"):
        backbone.latent_shape(64, 48)
    with pytest.raises(InputError, match="has no diffusers pipeline"):
        backbone.pipeline()
