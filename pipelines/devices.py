"""Where the commands that use a predictor run: on a GPU in bfloat16 if there is one."""

import torch

from i2l_model.backbones import Backbone, load_backbone


def inference_device() -> torch.device:
    """Return the GPU, or the CPU where there is none."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def load_for_inference(backbone: str) -> Backbone:
    """Load a backbone by name, folder or hub id, in float32 on a CPU.

    Raises:
        InputError: As `load_backbone`.
    """
    device = inference_device()
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    return load_backbone(backbone, dtype=dtype, device=device)
