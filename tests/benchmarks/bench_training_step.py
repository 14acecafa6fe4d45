"""One training step: many predicted LoRAs in one batch, against one LoRA at a time.

Prints seconds, samples a second, ratios and peak memory; asserts nothing about time.
"""

from collections.abc import Callable

import torch

from i2l_model.backbones import Backbone, load_backbone
from i2l_model.encoder import EncoderConfig
from i2l_model.predictor import LoraPredictor, PredictorConfig
from tests.machine_rates import device, flops, measure_rates, peak_gib, seconds

STYLES, TARGETS, REFS = 12, 4, 2


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
    return LoraPredictor.build(config).to(device()).train()


def _step(
    backbone: Backbone, predictor: LoraPredictor | None, styles: int, targets: int
) -> Callable[[], None]:
    """One forward and backward; without a predictor, the bare backbone's."""
    torch.manual_seed(1)
    num = styles * targets
    shape = (num, *backbone.latent_shape(64, 64))
    latents = torch.randn(shape, device=device(), requires_grad=predictor is None)
    sigmas = torch.rand(num, device=device())
    embeds = backbone.encode_prompts(["a star"] * num)
    refs = torch.rand(styles, REFS, 3, 64, 64, device=device()) * 2 - 1

    def step() -> None:
        lora = predictor(refs) if predictor is not None else None
        backbone.velocity(latents, sigmas, embeds, lora).square().mean().backward()

    return step


def test_batched_loras_against_one_at_a_time() -> None:
    backbone = load_backbone("tiny-zimage", device=device())
    predictor = _predictor(backbone, queries_per_factor=1)
    num = STYLES * TARGETS
    rows = {
        "bare backbone, one batch": seconds(_step(backbone, None, STYLES, TARGETS)),
        "i2l, one batch": seconds(_step(backbone, predictor, STYLES, TARGETS)),
        "i2l, one query a rank row": seconds(
            _step(backbone, _predictor(backbone, queries_per_factor=4), STYLES, TARGETS)
        ),
        "one LoRA at a time, its targets as a batch": seconds(
            _step(backbone, predictor, 1, TARGETS), repeats=STYLES
        ),
        "one sample at a time": seconds(_step(backbone, predictor, 1, 1), repeats=num),
    }
    batched = rows["i2l, one batch"]
    print(f"\n{num} samples a step, {torch.get_num_threads()} threads")
    for name, duration in rows.items():
        rate, ratio = num / duration, duration / batched
        print(f"{name:45s} {duration:7.3f} s  {rate:7.1f} samples/s  {ratio:5.2f} x")
    bare = rows["bare backbone, one batch"]
    one, style = rows["one sample at a time"], rows["one LoRA at a time, its targets as a batch"]
    print(f"batched / one sample at a time: {one / batched:.2f} x samples/s (goal 1.5, GPU 3)")
    print(f"batched / one LoRA at a time: {style / batched:.2f} x samples/s")
    print(f"over the bare backbone: {100 * (batched / bare - 1):.0f} % (goal 15)")
    step, rates = _step(backbone, predictor, STYLES, TARGETS), measure_rates(torch.float32)
    weights = [*backbone.transformer.parameters(), *predictor.parameters()]
    print(rates.floor(flops(step), 3 * sum(weight.nbytes for weight in weights)))
    print(f"peak memory {peak_gib(step):.2f} GiB")
