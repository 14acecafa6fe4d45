"""A tiny Z-Image with random weights: the real classes, at a size for tests and first training."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    ZImagePipeline,
    ZImageTransformer2DModel,
)
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import Qwen2Tokenizer, Qwen3Config, Qwen3Model

from i2l_model.backbones.zimage import ZImageBackbone

_SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_WORD_PATTERN = r" ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+"
_CHAT_TEMPLATE = (
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}"
    "{%- if enable_thinking is defined and not enable_thinking %}"
    "{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}{%- endif %}"
)
_TEXT_DIM = 32
_LATENT_CHANNELS = 8


def build_tiny_zimage(seed: int, folder: str | Path | None = None) -> ZImageBackbone:
    """Build a Z-Image backbone of half a million random weights on the CPU.

    Images have 64 px and the VAE shrinks by 4, so that latents are (8, 16, 16). The transformer has
    four blocks and 28 LoRA targets.

    Args:
        seed: Seed of the weights; the global random state stays untouched.
        folder: Where to save the pipeline in the diffusers layout, or None.
    """
    with seeded(seed):
        pipeline = ZImagePipeline(
            scheduler=FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=3.0),
            vae=_tiny_vae(),
            text_encoder=_tiny_text_encoder(),
            tokenizer=build_tokenizer(),
            transformer=_tiny_transformer(),
        )
    if folder is None:
        return ZImageBackbone(pipeline, name="random-zimage")
    pipeline.save_pretrained(folder, safe_serialization=True)
    return ZImageBackbone(pipeline, name=Path(folder).name)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Random weights from ``seed``; the global random state stays untouched."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def build_tokenizer(
    texts: Sequence[str] = (),
    vocab_size: int = 259,
    *,
    more_special_tokens: Sequence[str] = (),
    max_length: int = 512,
) -> Qwen2Tokenizer:
    """Build a byte-level BPE tokenizer with Qwen's chat turns.

    Args:
        texts: Texts to learn merges from. Without any, every byte is a token.
        vocab_size: Number of tokens: the special ones, 256 bytes, and merges.
        more_special_tokens: Besides the three of Qwen's chat turns; their ids follow these.
        max_length: Longest text in tokens.
    """
    special_tokens = [*_SPECIAL_TOKENS, *more_special_tokens]
    bpe = Tokenizer(models.BPE())
    bpe.normalizer = normalizers.NFC()
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORD_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=special_tokens,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    model = json.loads(bpe.to_str())["model"]
    return Qwen2Tokenizer(
        vocab=model["vocab"],
        merges=[tuple(merge) for merge in model["merges"]],
        additional_special_tokens=special_tokens[1:],
        chat_template=_CHAT_TEMPLATE,
        model_max_length=max_length,
    )


def _tiny_transformer() -> ZImageTransformer2DModel:
    return ZImageTransformer2DModel(
        in_channels=_LATENT_CHANNELS,
        dim=48,
        n_layers=2,
        n_refiner_layers=1,
        n_heads=4,
        n_kv_heads=4,
        cap_feat_dim=_TEXT_DIM,
        axes_dims=[4, 4, 4],
        axes_lens=[256, 64, 64],
    )


def _tiny_vae() -> AutoencoderKL:
    channels = [8, 8, 8]
    return AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * len(channels),
        up_block_types=["UpDecoderBlock2D"] * len(channels),
        block_out_channels=channels,
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=_LATENT_CHANNELS,
        sample_size=64,
        scaling_factor=0.3611,
        shift_factor=0.1159,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )


def _tiny_text_encoder() -> Qwen3Model:
    config = Qwen3Config(
        vocab_size=259,
        hidden_size=_TEXT_DIM,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
    )
    return Qwen3Model(config)
