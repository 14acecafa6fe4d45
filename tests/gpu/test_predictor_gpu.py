"""The predictor and per-sample injection on a GPU give what they give on the CPU."""

import torch

from i2l_model.assets import asset_path
from i2l_model.backbones import load_backbone
from i2l_model.predictor import LoraPredictor


def test_shipped_predictor_and_backbone_agree_with_the_cpu() -> None:
    torch.manual_seed(0)
    refs = torch.rand(2, 2, 3, 64, 64) * 2 - 1
    latents, sigmas = torch.randn(4, 8, 16, 16), torch.tensor([0.1, 0.4, 0.7, 1.0])
    outputs = []
    for device in ("cpu", "cuda"):
        backbone = load_backbone("tiny-zimage", device=device)
        predictor = LoraPredictor.from_pretrained(asset_path("tiny-predictor"), device=device)
        with torch.inference_mode():
            lora = predictor(refs.to(device))
            embeds = backbone.encode_prompts(["a star", "a house", "a boat", "a sun"])
            velocity = backbone.velocity(latents.to(device), sigmas.to(device), embeds, lora)
        outputs.append(velocity.cpu())
    assert torch.allclose(*outputs, atol=1e-3)
