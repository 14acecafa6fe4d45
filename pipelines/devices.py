"""Where commands that use a predictor run: on a GPU if there is one, backbones in bfloat16."""

import torch

from i2l_model.backbones import Backbone, load_backbone
from i2l_model.errors import InputError


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


def load_for_style(given: str | None, made_for: str, owner: str) -> Backbone:
    """Load the backbone that the user gave, or else the one that a LoRA or predictor names.

    Args:
        given: Name, folder or hub id, or None.
        made_for: What the owner was made for.
        owner: "LoRA" or "predictor", for the message.

    Raises:
        InputError: As `load_backbone`.
    """
    if given is not None:
        return load_for_inference(given)
    try:
        return load_for_inference(made_for)
    except InputError as error:
        problem = f"is what the {owner} was made for, but it {error.problem}"
        raise InputError("--backbone", made_for, problem, "give --backbone FOLDER") from error
