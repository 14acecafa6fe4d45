"""Predictor forward: version 2, version 1, version 2 with one small head at a time; image to file.

Reduced size on the CPU, Z-Image's full size with random weights on a GPU. Prints time, peak memory
and the machine's floors; asserts nothing about time.
"""

import math
from functools import partial
from pathlib import Path

import torch

from i2l_model.backbones import load_backbone
from i2l_model.lora.factors import LoraFactors
from i2l_model.lora.files import save_lora
from i2l_model.predictor import LoraPredictor, PredictorConfig
from i2l_model.predictor_sizes import full_size_config
from i2l_model.tower_config import EncoderConfig
from tests.machine_rates import device, flops, measure_rates, peak_gib, seconds

REFS = 4
FULL = device() == "cuda"
DTYPE = torch.bfloat16 if FULL else torch.float32


def _predictor(version: int) -> LoraPredictor:
    if FULL:
        config = full_size_config("z-image", 1 if version == 1 else 2, dinov3=False)
    else:
        config = PredictorConfig(
            version=1 if version == 1 else 2,
            backbone="tiny-zimage",
            targets=load_backbone("tiny-zimage").lora_targets(),
            rank=4,
            dim=128,
            depth=2,
            num_heads=4,
            compress_dim=32,
            queries_per_factor=4,
            encoder=EncoderConfig(),
        )
    torch.manual_seed(0)
    with torch.device(device()):
        return LoraPredictor.build(config).to(DTYPE).eval()


def _one_head_at_a_time(predictor: LoraPredictor, outputs: torch.Tensor) -> LoraFactors:
    """The same heads, layer by layer: two small products each."""
    lora: dict[str, dict[str, torch.Tensor]] = {"A": {}, "B": {}}
    start = 0
    for head in predictor.heads.groups:
        features, side = head.group.features, head.group.side
        scale = predictor.config.lora_scale if side == "B" else 1 / math.sqrt(features)
        for layer, name in enumerate(head.group.names):
            part = outputs[:, start : start + head.num_queries]
            rows = (part @ head.down[layer] * scale) @ head.up[layer]
            rows = rows.reshape(len(outputs), -1, features)
            lora[side][name] = rows if side == "A" else rows.mT
            start += head.num_queries
    names = predictor.heads.names
    return LoraFactors(*({name: lora[side][name] for name in names} for side in "AB"))


@torch.inference_mode()
def test_predictor_forward() -> None:
    rates = measure_rates(DTYPE)
    print(f"\n{device()} {DTYPE}: {rates.flops / 1e9:.1f} GFLOP/s, {rates.bytes / 1e9:.1f} GB/s")
    for version in (2, 1):
        predictor = _predictor(version)
        size = predictor.image_size
        images = torch.rand(1, REFS, 3, size, size, device=device(), dtype=DTYPE) * 2 - 1
        shares = torch.full((1, REFS), 1 / REFS, device=device())
        tokens = predictor.encode_references(images)
        outputs = torch.randn(
            1, predictor.heads.num_queries, predictor.heads.groups[0].down.shape[1],
            device=device(), dtype=DTYPE,
        )  # fmt: skip
        rows = predictor.heads(outputs, 0.3)
        steps = {
            "with the encoder": partial(predictor, images),
            "without the encoder": partial(predictor.predict_from_tokens, tokens, shares),
            "heads, grouped": lambda p=predictor, o=outputs: p.heads.factors(p.heads(o, 0.3)),
            "naming the factors only": partial(predictor.heads.factors, rows),
        }
        if version == 2:
            steps["heads, one at a time"] = partial(_one_head_at_a_time, predictor, outputs)
        for name, step in steps.items():
            print(f"v{version} {name:26s} {1e3 * seconds(step):9.2f} ms {peak_gib(step):6.2f} GiB")
        core = steps["without the encoder"]
        weights = [p for n, p in predictor.named_parameters() if not n.startswith("encoder.")]
        moved = sum(w.nbytes for w in weights) + sum(r.nbytes for r in rows)
        print(f"v{version} without the encoder, {rates.floor(flops(core), moved)}")
        del predictor, rows, steps, core, weights


@torch.inference_mode()
def test_four_images_to_a_file(tmp_path: Path) -> None:
    predictor = _predictor(2)
    size = predictor.image_size
    images = torch.rand(1, REFS, 3, size, size) * 2 - 1

    def run() -> None:
        save_lora(
            predictor(images.to(device(), DTYPE)), tmp_path / "style.safetensors", "diffusers"
        )

    print(f"\n{REFS} images to a LoRA file: {1e3 * seconds(run):.1f} ms")


@torch.inference_mode()
def test_the_loop_computes_the_same() -> None:
    predictor = _predictor(2)
    for parameter in predictor.heads.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    dim = predictor.config.dim
    outputs = torch.randn(2, predictor.heads.num_queries, dim, device=device(), dtype=DTYPE)
    grouped = predictor.heads.factors(predictor.heads(outputs, predictor.config.lora_scale))
    looped = _one_head_at_a_time(predictor, outputs)
    for name in grouped.lora_A:
        torch.testing.assert_close(looped.lora_A[name], grouped.lora_A[name], atol=1e-2, rtol=1e-2)
        torch.testing.assert_close(looped.lora_B[name], grouped.lora_B[name], atol=1e-2, rtol=1e-2)
