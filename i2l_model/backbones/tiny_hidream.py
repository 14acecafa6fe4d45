"""A tiny HiDream-O1 with random weights: the released layout, at a size for tests."""

from pathlib import Path

from transformers import Qwen3VLConfig

from i2l_model.backbones.hidream_o1 import HiDreamO1Backbone, HiDreamO1ForImageGeneration
from i2l_model.backbones.tiny import build_tokenizer, seeded

_SPECIAL_TOKENS = (
    *("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"),
    *("<|boi_token|>", "<|bor_token|>", "<|eor_token|>", "<|bot_token|>", "<|tms_token|>"),
)
_VOCAB_SIZE = 3 + len(_SPECIAL_TOKENS) + 256


def build_tiny_hidream(
    seed: int, folder: str | Path | None = None, *, dev: bool = False
) -> HiDreamO1Backbone:
    """Build a HiDream-O1 backbone of half a million random weights on the CPU.

    Images have 64 px, which are four patches. The language model has two layers: 14 LoRA targets.

    Args:
        seed: Seed of the weights; the global random state stays untouched.
        folder: Where to save the checkpoint in the released layout, or None.
        dev: The distilled variant.
    """
    tokenizer = build_tokenizer(vocab_size=_VOCAB_SIZE, more_special_tokens=_SPECIAL_TOKENS)
    with seeded(seed):
        checkpoint = HiDreamO1ForImageGeneration(tiny_config())
    name = "random-hidream"
    if folder is not None:
        name = Path(folder).name
        checkpoint.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return HiDreamO1Backbone(checkpoint.model, tokenizer, name, dev=dev, image_size=64)


def tiny_config() -> Qwen3VLConfig:
    """The sizes, with the token ids of the tiny tokenizer."""
    ids = {token: 3 + place for place, token in enumerate(_SPECIAL_TOKENS)}
    text = {
        "model_type": "qwen3_vl_text",
        "vocab_size": _VOCAB_SIZE,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-6,
        "attention_bias": False,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 5_000_000,
            "mrope_section": [4, 2, 2],
            "mrope_interleaved": True,
        },
    }
    vision = {
        "model_type": "qwen3_vl_vision",
        "depth": 1,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_heads": 2,
        "patch_size": 16,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "out_hidden_size": 64,
        "num_position_embeddings": 16,
        "deepstack_visual_indexes": [0],
    }
    return Qwen3VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=False,
        image_size=64,
    )
