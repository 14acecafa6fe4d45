"""One training step: many predicted LoRAs in one batch, against one LoRA at a time.

Prints seconds, samples a second, ratios and peak memory; asserts nothing about time.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pytest
import torch
from diffusers import ZImageTransformer2DModel

from i2l_model.backbones import Backbone, load_backbone
from i2l_model.backbones.zimage import ZImageBackbone
from i2l_model.predictor import LoraPredictor, PredictorConfig
from i2l_model.tower_config import EncoderConfig
from tests.machine_rates import device, flops, measure_rates, peak_gib, seconds

REFS = 2


@dataclass(frozen=True)
class Case:
    """Sizes of a step.

    Attributes:
        transformer: What its configuration has instead of the shipped backbone's.
        predictor_dim: Width of the predictor.
        rank: Of its LoRAs.
        styles: LoRAs a step.
        targets: Samples of each.
        pixels: Side of the images.
        rounds: Of which the best counts.
    """

    transformer: Mapping[str, object]
    predictor_dim: int
    rank: int
    styles: int
    targets: int
    pixels: int
    rounds: int


_MIDDLE = {"dim": 768, "n_layers": 6, "n_heads": 12, "n_kv_heads": 12, "axes_dims": [16, 24, 24]}
CASES = {
    "tiny": Case({}, 128, 4, styles=12, targets=4, pixels=64, rounds=5),
    "middle": Case(_MIDDLE, 256, 8, styles=4, targets=2, pixels=128, rounds=3),
}


def _backbone(case: Case) -> Backbone:
    """The shipped Z-Image with a transformer of the case's size and random weights."""
    shipped = load_backbone("tiny-zimage")
    assert isinstance(shipped, ZImageBackbone)
    torch.manual_seed(0)
    pipeline = shipped.pipeline()
    config = {**shipped.transformer.config, **case.transformer}
    pipeline.transformer = ZImageTransformer2DModel.from_config(config)
    return ZImageBackbone(pipeline.to(device()), name="random-zimage")


def _predictor(case: Case, backbone: Backbone, queries_per_factor: int) -> LoraPredictor:
    torch.manual_seed(0)
    config = PredictorConfig(
        backbone=backbone.name,
        targets=backbone.lora_targets(),
        rank=case.rank,
        dim=case.predictor_dim,
        depth=2,
        num_heads=4,
        compress_dim=32,
        queries_per_factor=queries_per_factor,
        encoder=EncoderConfig(trainable=True),
    )
    return LoraPredictor.build(config).to(device()).train()


def _step(
    case: Case, backbone: Backbone, predictor: LoraPredictor | None, styles: int, targets: int
) -> Callable[[], None]:
    """One forward and backward; without a predictor, the bare backbone's."""
    torch.manual_seed(1)
    num = styles * targets
    shape = (num, *backbone.latent_shape(case.pixels, case.pixels))
    latents = torch.randn(shape, device=device(), requires_grad=predictor is None)
    sigmas = torch.rand(num, device=device())
    embeds = backbone.encode_prompts(["a star"] * num)
    refs = torch.rand(styles, REFS, 3, 64, 64, device=device()) * 2 - 1

    def step() -> None:
        lora = predictor(refs) if predictor is not None else None
        backbone.velocity(latents, sigmas, embeds, lora).square().mean().backward()

    return step


@pytest.mark.parametrize("name", CASES)
def test_batched_loras_against_one_at_a_time(name: str) -> None:
    case = CASES[name]
    backbone = _backbone(case)
    predictor = _predictor(case, backbone, queries_per_factor=1)
    more = _predictor(case, backbone, queries_per_factor=case.rank)
    num, styles, targets = case.styles * case.targets, case.styles, case.targets
    whole = _step(case, backbone, predictor, styles, targets)
    single = _step(case, backbone, predictor, 1, 1)
    runs = {
        "bare backbone, one batch": (_step(case, backbone, None, styles, targets), 1),
        "i2l, one batch": (whole, 1),
        "i2l, one query a rank row": (_step(case, backbone, more, styles, targets), 1),
        "one LoRA at a time, its targets as a batch": (
            _step(case, backbone, predictor, 1, targets),
            styles,
        ),
        "one sample at a time": (single, num),
    }
    rows = {row: seconds(step, case.rounds, repeats) for row, (step, repeats) in runs.items()}
    batched = rows["i2l, one batch"]
    sizes = [sum(w.numel() for w in m.parameters()) for m in (backbone.transformer, predictor)]
    print(
        f"\n{name}: backbone {sizes[0] / 1e6:.1f} M, predictor {sizes[1] / 1e6:.1f} M, "
        f"{num} samples a step, {torch.get_num_threads()} threads"
    )
    for row, duration in rows.items():
        rate, ratio = num / duration, duration / batched
        print(f"{row:45s} {duration:7.3f} s  {rate:7.1f} samples/s  {ratio:5.2f} x")
    bare = rows["bare backbone, one batch"]
    one, style = rows["one sample at a time"], rows["one LoRA at a time, its targets as a batch"]
    work = num * flops(single) / flops(whole)
    print(f"batched / one sample at a time: {one / batched:.2f} x samples/s (goal 1.5, GPU 3)")
    print(f"  of it, arithmetic not done again: {work:.2f} x")
    print(f"batched / one LoRA at a time: {style / batched:.2f} x samples/s")
    print(f"over the bare backbone: {100 * (batched / bare - 1):.0f} % (goal 15)")
    rates = measure_rates(torch.float32)
    weights = [*backbone.transformer.parameters(), *predictor.parameters()]
    print(rates.floor(flops(whole), 3 * sum(weight.nbytes for weight in weights)))
    print(f"peak memory {peak_gib(whole):.2f} GiB")
