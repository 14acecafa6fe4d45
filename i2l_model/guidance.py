"""The LoRAs that the two branches of classifier-free guidance carry."""

from typing import Literal, get_args

from i2l_model.errors import InputError
from i2l_model.lora.factors import LoraFactors

Guidance = Literal["positive_only", "neutral_negative", "symmetric"]


def check_guidance(guidance: Guidance, negative_lora: LoraFactors | None) -> None:
    """Raise InputError if the guidance is unknown, or lacks or does not take a negative LoRA."""
    if guidance not in get_args(Guidance):
        known = ", ".join(get_args(Guidance))
        raise InputError("guidance", guidance, "is unknown", f"use one of: {known}")
    if (guidance == "neutral_negative") != (negative_lora is not None):
        problem = "and negative_lora do not go together"
        fix = "give negative_lora with neutral_negative and only then"
        raise InputError("guidance", guidance, problem, fix)


def negative_branch(
    lora: LoraFactors, guidance: Guidance, negative_lora: LoraFactors | None
) -> LoraFactors:
    """Return the negative branch's LoRAs, as many as the positive branch's.

    Args:
        lora: The positive branch's N LoRAs.
        guidance: "positive_only" changes nothing in the negative branch, "neutral_negative" gives
            it ``negative_lora``, "symmetric" the LoRA of its image.
        negative_lora: One LoRA, or N, of the same layers and rank as ``lora``.

    Raises:
        InputError: If the arguments do not go together, or ``negative_lora`` is not finite.
    """
    check_guidance(guidance, negative_lora)
    if negative_lora is None:
        return lora if guidance == "symmetric" else lora.zeros_like()
    negative_lora.check_finite("negative_lora")
    if negative_lora.num_loras == 1:
        return negative_lora.select([0] * lora.num_loras)
    if negative_lora.num_loras != lora.num_loras:
        problem = f"must be 1 or {lora.num_loras} LoRAs"
        raise InputError("negative_lora", negative_lora.num_loras, problem, "fix their number")
    return negative_lora
