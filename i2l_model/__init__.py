"""The model: reference images in, LoRA weights out."""
