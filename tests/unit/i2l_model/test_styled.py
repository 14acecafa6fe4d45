"""diffusers' pipelines under a predicted LoRA: each branch, each task, and nothing left behind."""

import copy

import numpy as np
import pytest
import torch
from diffusers import (
    Flux2KleinInpaintPipeline,
    ZImageControlNetInpaintPipeline,
    ZImageControlNetModel,
    ZImageControlNetPipeline,
    ZImageImg2ImgPipeline,
    ZImageInpaintPipeline,
)
from peft import LoraConfig
from PIL import Image

from i2l_model.errors import InputError
from i2l_model.generation import SeededNoise, sample_latents
from i2l_model.lora.factors import LoraFactors
from i2l_model.styled import pipeline_guidance, styled
from tests.tiny_backbones import build_tiny, random_factors

PROMPTS = ["a red circle", "a much longer prompt about a blue house on a hill"]
STEPS = 2
TOLERANCE, VISIBLE = 1e-4, 2e-3  # of values in [0, 1]: largest and mean difference


def lora_of(backbone, num_loras=1, seed=0) -> LoraFactors:
    return random_factors(backbone.lora_targets(), num_loras, seed=seed)


def quiet(pipeline):
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def text_arguments(backbone) -> dict:
    if backbone.family == "z-image":
        return {}
    return {
        "max_sequence_length": backbone.max_prompt_tokens,
        "text_encoder_out_layers": backbone.text_layers,
    }


def draw(backbone, pipeline=None, *, prompts=PROMPTS, guidance_scale=3.0, **options) -> np.ndarray:
    pipeline = pipeline or quiet(backbone.pipeline())
    noise = SeededNoise(range(len(prompts)), backbone.latent_shape(64, 64)).draw()
    return pipeline(
        prompt=list(prompts),
        height=64,
        width=64,
        num_inference_steps=STEPS,
        guidance_scale=pipeline_guidance(pipeline, guidance_scale),
        output_type="np",
        **{"latents": noise, **text_arguments(backbone), **options},
    ).images


def decoded(backbone, latents: torch.Tensor) -> np.ndarray:
    images = backbone.decode_latents(latents).clamp(-1, 1)
    return (images.permute(0, 2, 3, 1).numpy() + 1) / 2


@pytest.fixture(params=["z-image", "flux2"])
def backbone(request):
    return build_tiny(request.param)


@pytest.mark.parametrize("num_loras", [1, 2])
@pytest.mark.parametrize("guidance", ["positive_only", "symmetric", "neutral_negative"])
def test_guidance_equals_the_projects_own_sampler(backbone, guidance, num_loras):
    lora = lora_of(backbone, num_loras)
    negative = lora_of(backbone, seed=8) if guidance == "neutral_negative" else None
    pipeline = quiet(backbone.pipeline())
    with styled(pipeline, lora, guidance=guidance, negative_lora=negative):
        found = draw(backbone, pipeline)
    latents = sample_latents(
        backbone,
        PROMPTS,
        lora=lora,
        seeds=[0, 1],
        num_inference_steps=STEPS,
        guidance_scale=3.0,
        guidance=guidance,
        negative_lora=negative,
    )
    assert np.abs(found - decoded(backbone, latents)).max() <= TOLERANCE
    assert np.abs(found - draw(backbone)).mean() > VISIBLE


def test_positive_only_equals_two_forwards_by_hand(backbone):
    lora = lora_of(backbone)
    noise = SeededNoise([0], backbone.latent_shape(64, 64)).draw()
    sigmas = backbone.inference_sigmas(STEPS, 64, 64)
    (embeds,), (empty,) = backbone.encode_prompts(["x"]), backbone.encode_prompts([""])
    latents = noise
    for step in range(STEPS):
        sigma = sigmas[step : step + 1]
        positive = backbone.velocity(latents, sigma, [embeds], lora)
        negative = backbone.velocity(latents, sigma, [empty])
        velocity = negative + 3.0 * (positive - negative)
        latents = latents + (sigmas[step + 1] - sigma) * velocity
    pipeline = quiet(backbone.pipeline())
    with styled(pipeline, lora):
        found = draw(backbone, pipeline, prompts=["x"])
    assert np.abs(found - decoded(backbone, latents)).max() <= TOLERANCE


def test_several_images_of_a_prompt_share_its_lora(backbone):
    lora = lora_of(backbone, 2)
    noise = SeededNoise([0, 1, 2, 3], backbone.latent_shape(64, 64)).draw()
    pipeline = quiet(backbone.pipeline())
    with styled(pipeline, lora):
        together = draw(backbone, pipeline, num_images_per_prompt=2, latents=noise)
    for number in range(2):
        with styled(pipeline, lora.select([number])):
            alone = draw(
                backbone, pipeline, prompts=PROMPTS[number : number + 1], num_images_per_prompt=2,
                latents=noise[2 * number : 2 * number + 2],
            )  # fmt: skip
        assert np.abs(together[2 * number : 2 * number + 2] - alone).max() <= TOLERANCE


def test_guidance_that_ends_early_leaves_the_positive_branch():
    backbone = build_tiny("z-image")
    lora = lora_of(backbone, 2)
    pipeline = quiet(backbone.pipeline())
    seen = []

    def spy(module, args, output):
        seen.append(output.shape[0])

    handle = backbone.transformer.layers[0].attention.to_q.register_forward_hook(spy)
    with styled(pipeline, lora):
        cut = draw(backbone, pipeline, cfg_truncation=0.1)
        whole = draw(backbone, pipeline)
    handle.remove()
    assert seen == [4, 2, 4, 4]
    assert np.abs(cut - whole).mean() > VISIBLE


def merged(backbone, lora: LoraFactors):
    copied = copy.deepcopy(backbone)
    for name in lora.lora_A:
        copied.transformer.get_submodule(name).weight.data += lora.delta(name)[0]
    return copied


def picture(seed: int) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 255, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((64, 64))


def mask() -> Image.Image:
    pixels = np.zeros((64, 64), np.uint8)
    pixels[:, 32:] = 255
    return Image.fromarray(pixels)


def controlnet_of(transformer) -> ZImageControlNetModel:
    torch.manual_seed(0)
    config = transformer.config
    controlnet = ZImageControlNetModel(
        control_layers_places=[0],
        control_refiner_layers_places=[0],
        control_in_dim=2 * config.in_channels + 1,
        add_control_noise_refiner="control_noise_refiner",
        dim=config.dim,
        n_refiner_layers=1,
        n_heads=config.n_heads,
        n_kv_heads=config.n_kv_heads,
    )
    for parameter in controlnet.parameters():  # released as zeros, so that a new one does nothing
        torch.nn.init.normal_(parameter, std=0.05)
    return ZImageControlNetModel.from_transformer(controlnet, transformer).eval()


def task(name: str, backbone):
    """A pipeline of the family for a task, and its arguments."""
    parts = backbone.pipeline().components
    image = {"image": picture(0)}
    if name == "references":
        return backbone.pipeline(), image
    if name == "klein-inpaint":
        return Flux2KleinInpaintPipeline(**parts), {**image, "mask_image": mask()}
    if name == "image-to-image":
        return ZImageImg2ImgPipeline(**parts), {**image, "strength": 0.9}
    if name == "inpaint":
        return ZImageInpaintPipeline(**parts), {**image, "mask_image": mask()}
    controlnet = controlnet_of(backbone.transformer)
    control = {"control_image": picture(1), "controlnet_conditioning_scale": 1.0}
    if name == "controlnet":
        return ZImageControlNetPipeline(**parts, controlnet=controlnet), control
    pipeline = ZImageControlNetInpaintPipeline(**parts, controlnet=controlnet)
    return pipeline, {**control, **image, "mask_image": mask()}


TASKS = {
    "image-to-image": "z-image",
    "inpaint": "z-image",
    "controlnet": "z-image",
    "controlnet-inpaint": "z-image",
    "references": "flux2",
    "klein-inpaint": "flux2",
}


def draw_task(name: str, backbone, lora: LoraFactors | None = None, **options) -> np.ndarray:
    pipeline, arguments = task(name, backbone)
    quiet(pipeline)
    arguments = dict(
        prompt="a red circle", height=64, width=64, num_inference_steps=4, output_type="np",
        guidance_scale=pipeline_guidance(pipeline, 3.0),
        generator=torch.Generator().manual_seed(0), **arguments, **text_arguments(backbone),
    )  # fmt: skip
    if lora is None:
        return pipeline(**arguments).images
    with styled(pipeline, lora, **options):
        return pipeline(**arguments).images


@pytest.mark.parametrize("name", TASKS)
def test_every_task_is_styled_and_strength_zero_is_the_bare_pipeline(name):
    backbone = build_tiny(TASKS[name])
    lora = lora_of(backbone)
    bare = draw_task(name, backbone)
    assert np.array_equal(draw_task(name, backbone, lora, strength=0.0), bare)
    assert np.abs(draw_task(name, backbone, lora) - bare).mean() > VISIBLE


@pytest.mark.parametrize("name", [name for name in TASKS if "controlnet" not in name])
def test_every_task_equals_merged_weights(name):
    backbone = build_tiny(TASKS[name])
    lora = lora_of(backbone)
    found = draw_task(name, backbone, lora, guidance="symmetric")
    assert np.abs(found - draw_task(name, merged(backbone, lora))).max() <= TOLERANCE


@pytest.mark.parametrize("name", ["controlnet", "controlnet-inpaint"])
def test_layers_that_a_controlnet_shares_are_not_styled_in_its_own_pass(name, monkeypatch):
    backbone = build_tiny("z-image")
    lora = lora_of(backbone)
    found = draw_task(name, backbone, lora, guidance="symmetric")
    # by hand: the transformer with merged weights, the ControlNet with the bare shared layers
    changed = merged(backbone, lora)
    bare_transformer = backbone.transformer

    def from_transformer(controlnet, transformer):
        return original(controlnet, bare_transformer)

    original = ZImageControlNetModel.from_transformer
    monkeypatch.setattr(ZImageControlNetModel, "from_transformer", from_transformer)
    assert np.abs(found - draw_task(name, changed)).max() <= TOLERANCE
    monkeypatch.undo()
    assert np.abs(found - draw_task(name, changed)).max() > VISIBLE, (
        "shared layers make a difference"
    )


def test_dev_is_styled_in_its_single_branch():
    backbone = build_tiny("flux2-dev")
    lora = lora_of(backbone)
    pipeline = quiet(backbone.pipeline())
    with styled(pipeline, lora):
        found = draw(backbone, pipeline, guidance_scale=3.5)
    assert np.abs(found - draw(merged(backbone, lora), guidance_scale=3.5)).max() <= TOLERANCE


def test_a_users_own_lora_adds_up_and_stays_as_it_was(backbone):
    with_own = copy.deepcopy(backbone)
    own = LoraConfig(r=2, target_modules=["to_q", "to_k"], init_lora_weights=False)
    torch.manual_seed(0)
    with_own.transformer.add_adapter(own, adapter_name="mine")
    pipeline = quiet(with_own.pipeline())
    pipeline.set_adapters(["mine"], [0.5])
    before = {name: p.clone() for name, p in with_own.transformer.state_dict().items()}
    bare = draw(with_own, pipeline)
    lora = lora_of(backbone)
    with styled(pipeline, lora, guidance="symmetric"):
        both = draw(with_own, pipeline)
    pipeline.fuse_lora(adapter_names=["mine"], components=["transformer"])
    pipeline.unload_lora_weights()
    assert np.abs(both - draw(merged(with_own, lora))).max() <= TOLERANCE

    again = copy.deepcopy(backbone)
    torch.manual_seed(0)
    again.transformer.add_adapter(own, adapter_name="mine")
    pipeline = quiet(again.pipeline())
    pipeline.set_adapters(["mine"], [0.5])
    with styled(pipeline, lora):
        draw(again, pipeline)
    after = again.transformer.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert pipeline.get_active_adapters() == ["mine"]
    assert np.array_equal(draw(again, pipeline), bare)


def test_nothing_stays_behind_after_an_exception(backbone):
    pipeline = quiet(backbone.pipeline())
    before = draw(backbone, pipeline)

    def stop(*_):
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"), styled(pipeline, lora_of(backbone)):
        draw(backbone, pipeline, callback_on_step_end=stop)
    block = backbone.transformer.get_submodule(backbone.lora_targets()[0].name)
    handle = block.register_forward_hook(stop)
    with pytest.raises(RuntimeError, match="stop"), styled(pipeline, lora_of(backbone)):
        draw(backbone, pipeline)
    handle.remove()
    assert not {"forward", "cache_context"} & vars(backbone.transformer).keys()
    assert not any(module._forward_hooks for module in backbone.transformer.modules())
    assert np.array_equal(draw(backbone, pipeline), before)


def test_what_does_not_fit_is_refused_before_anything_is_drawn(backbone):
    pipeline, lora = backbone.pipeline(), lora_of(backbone)
    other = lora_of(build_tiny("hidream-o1"))
    for options, message in (
        ({"lora": other}, "is no layer of this backbone"),
        ({"lora": lora, "guidance": "both"}, "is unknown"),
        ({"lora": lora, "guidance": "neutral_negative"}, "do not go together"),
        ({"lora": lora, "negative_lora": lora}, "do not go together"),
        ({"lora": lora, "strength": float("nan")}, r"strength \(nan\) is not finite"),
        ({"lora": lora.scaled(float("inf"))}, "holds NaN or infinite values"),
    ):
        with pytest.raises(InputError, match=message), styled(pipeline, **options):
            pass
    pipeline.transformer = torch.nn.Linear(1, 1)
    with pytest.raises(InputError, match="cannot be styled"), styled(pipeline, lora):
        pass
