"""One training step at Z-Image's released size, random weights, on one GPU.

Prints samples a second, peak memory and how much of the rate of a large matrix product the model's
own arithmetic reaches (recomputed blocks are not counted), for micro-batches at two sizes.
"""

from collections.abc import Callable

import pytest
import torch

from i2l_model.backbones import load_backbone
from i2l_model.backbones.on_meta import backbone_on_meta
from i2l_model.backbones.released import released
from i2l_model.backbones.zimage import ZImageBackbone
from i2l_model.predictor import LoraPredictor, PredictorConfig
from i2l_model.tower_config import EncoderConfig
from tests.machine_rates import flops, measure_rates, peak_gib, seconds

pytestmark = pytest.mark.gpu

NAME = "z-image"
REFS, PROMPT_TOKENS = 2, 128
ROUNDS = 2
DTYPE = torch.bfloat16


def _backbone() -> ZImageBackbone:
    """The shipped pipeline around a transformer of the released size."""
    shipped = load_backbone("tiny-zimage")
    assert isinstance(shipped, ZImageBackbone)
    torch.manual_seed(0)
    torch.set_default_dtype(DTYPE)
    try:
        with torch.device("cuda"):
            transformer = released(NAME).build()
    finally:
        torch.set_default_dtype(torch.float32)
    pipeline = shipped.pipeline().to("cuda", DTYPE)
    pipeline.transformer = transformer.requires_grad_(False).eval()
    backbone = ZImageBackbone(pipeline, name="random-zimage")
    backbone.enable_gradient_checkpointing()
    return backbone


def _predictor(backbone: ZImageBackbone) -> LoraPredictor:
    """As in the full-size recipe; its encoder's tokens are cached, so that it stays idle."""
    config = PredictorConfig(
        backbone=backbone.name,
        targets=backbone.lora_targets(),
        rank=16,
        dim=1024,
        depth=8,
        num_heads=16,
        compress_dim=64,
        queries_per_factor=16,
        encoder=EncoderConfig(
            image_size=384, patch_size=16, hidden_size=1536, num_layers=1, num_heads=16
        ),
    )
    return LoraPredictor.build(config).to("cuda", DTYPE).train()


def _step(
    backbone: ZImageBackbone, predictor: LoraPredictor, batch: int, pixels: int
) -> tuple[Callable[[], None], int]:
    """Forward, backward and optimizer of ``batch`` styles with one target each, and its FLOP.

    A frozen backbone's backward is as much arithmetic as its forward; blocks that are computed
    again for lack of memory are not counted. The predictor's forward is counted apart: without
    gradients, the counter fails on a module that returns one of its parameters.
    """
    # The shipped pipeline's VAE makes larger latents.
    shape = backbone_on_meta(released(NAME).hub_id, DTYPE).latent_shape(pixels, pixels)
    channels, height, width = shape
    latents = torch.randn(batch, channels, height, width, device="cuda")
    sigmas = torch.rand(batch, device="cuda")
    features = backbone.transformer.config.cap_feat_dim
    embeds = [torch.randn(PROMPT_TOKENS, features, device="cuda", dtype=DTYPE)] * batch
    tokens = (torch.randn(batch, REFS, 576, 1536, device="cuda", dtype=DTYPE),)
    trained = [weight for weight in predictor.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-5, fused=True)

    def step() -> None:
        lora = predictor(None, ref_tokens=tokens)
        backbone.velocity(latents, sigmas, embeds, lora).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    with torch.no_grad():
        predicted = predictor(None, ref_tokens=tokens)

    @torch.no_grad()
    def forward() -> None:
        backbone.velocity(latents, sigmas, embeds, predicted)

    def predict() -> None:
        lora = predictor(None, ref_tokens=tokens)
        sum(factor.sum() for factor in [*lora.lora_A.values(), *lora.lora_B.values()]).backward()

    alone = flops(predict)
    predictor.zero_grad()
    return step, 2 * flops(forward) + alone


def _measured(
    backbone: ZImageBackbone, predictor: LoraPredictor, batch: int, pixels: int
) -> tuple[float, float, int] | None:
    """Seconds, peak memory in GiB and FLOP of a step; None where it does not fit."""
    try:
        step, model_flops = _step(backbone, predictor, batch, pixels)
        return seconds(step, rounds=ROUNDS), peak_gib(step), model_flops
    except torch.cuda.OutOfMemoryError:
        return None


def test_samples_a_second_and_utilisation() -> None:
    backbone = _backbone()
    predictor = _predictor(backbone)
    rates = measure_rates(DTYPE)
    print(f"\n{torch.cuda.get_device_name()}, matrix product {rates.flops / 1e12:.0f} TFLOP/s")
    for pixels in (512, 1024):
        for batch in (1, 2, 4, 8):
            found = _measured(backbone, predictor, batch, pixels)
            predictor.zero_grad()
            torch.cuda.empty_cache()
            if found is None:
                print(f"{pixels} px, micro-batch {batch}: does not fit")
                continue
            duration, peak, model_flops = found
            print(
                f"{pixels} px, micro-batch {batch}: {batch / duration:.2f} samples/s, peak"
                f" {peak:.1f} GiB, utilisation {model_flops / duration / rates.flops:.0%}"
            )
