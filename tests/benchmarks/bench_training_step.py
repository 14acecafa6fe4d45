"""One training step: many predicted LoRAs in one batch, against one LoRA at a time.

Prints seconds, samples a second, ratios and peak memory; asserts nothing about time.
"""

import resource
import time
from collections.abc import Callable

import torch

from i2l_model.backbones import Backbone, load_backbone
from i2l_model.encoder import EncoderConfig
from i2l_model.predictor import LoraPredictor, PredictorConfig

STYLES, TARGETS, REFS, ROUNDS = 12, 4, 2, 5


def _predictor(backbone: Backbone, queries_per_factor: int) -> LoraPredictor:
    torch.manual_seed(0)
    config = PredictorConfig(
        backbone=backbone.name,
        targets=backbone.lora_targets(),
        rank=4,
        dim=128,
        depth=2,
        num_heads=4,
        compress_dim=32,
        queries_per_factor=queries_per_factor,
        encoder=EncoderConfig(trainable=True),
    )
    return LoraPredictor.build(config).train()


def _step(
    backbone: Backbone, predictor: LoraPredictor | None, styles: int, targets: int
) -> Callable[[], None]:
    """One forward and backward; without a predictor, the bare backbone's."""
    torch.manual_seed(1)
    num = styles * targets
    latents = torch.randn(num, *backbone.latent_shape(64, 64), requires_grad=predictor is None)
    sigmas = torch.rand(num)
    embeds = backbone.encode_prompts(["a star"] * num)
    refs = torch.rand(styles, REFS, 3, 64, 64) * 2 - 1

    def step() -> None:
        lora = predictor(refs) if predictor is not None else None
        backbone.velocity(latents, sigmas, embeds, lora).square().mean().backward()

    return step


def _seconds(step: Callable[[], None], repeats: int = 1) -> float:
    """Best of some rounds, after one to warm up."""
    best = float("inf")
    for round_number in range(ROUNDS + 1):
        start = time.perf_counter()
        for _ in range(repeats):
            step()
        if round_number:
            best = min(best, time.perf_counter() - start)
    return best


def test_batched_loras_against_one_at_a_time() -> None:
    backbone = load_backbone("tiny-zimage")
    predictor = _predictor(backbone, queries_per_factor=1)
    num = STYLES * TARGETS
    rows = {
        "bare backbone, one batch": _seconds(_step(backbone, None, STYLES, TARGETS)),
        "i2l, one batch": _seconds(_step(backbone, predictor, STYLES, TARGETS)),
        "i2l, one query a rank row": _seconds(
            _step(backbone, _predictor(backbone, queries_per_factor=4), STYLES, TARGETS)
        ),
        "one LoRA at a time, its targets as a batch": _seconds(
            _step(backbone, predictor, 1, TARGETS), STYLES
        ),
        "one sample at a time": _seconds(_step(backbone, predictor, 1, 1), num),
    }
    batched = rows["i2l, one batch"]
    print(f"\n{num} samples a step, {torch.get_num_threads()} threads")
    for name, seconds in rows.items():
        rate, ratio = num / seconds, seconds / batched
        print(f"{name:45s} {seconds:7.3f} s  {rate:7.1f} samples/s  {ratio:5.2f} x")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"peak memory {peak:.2f} GiB")
