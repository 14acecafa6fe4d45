"""LoRA factors: apply them to a backbone, fuse them, read and write their files."""

from i2l_model.lora.factors import LoraFactors, LoraTarget
from i2l_model.lora.files import load_lora, save_lora
from i2l_model.lora.injection import inject_lora

__all__ = ["LoraFactors", "LoraTarget", "inject_lora", "load_lora", "save_lora"]
