"""The tiny text side: a byte-level BPE tokenizer and a small Qwen3, both for stylegrid captions."""

import numpy as np
import torch
from torch import Tensor
from transformers import Qwen2Tokenizer, Qwen3Config, Qwen3Model

from i2l_model.backbones.tiny import build_tokenizer
from jobs.corpus.captions import caption
from jobs.corpus.contents import CONTENT_NAMES
from jobs.corpus.styles import sample_style

VOCAB_SIZE = 640
TEXT_DIM = 128
NUM_CORPUS_CAPTIONS = 6_000


def _caption_corpus() -> list[str]:
    rng = np.random.default_rng(0)
    return [
        caption(CONTENT_NAMES[i % len(CONTENT_NAMES)], rng, sample_style(i, 0) if i % 2 else None)
        for i in range(NUM_CORPUS_CAPTIONS)
    ]


def build_caption_tokenizer() -> Qwen2Tokenizer:
    """A Qwen2 tokenizer whose merges were learned from stylegrid captions; any text encodes."""
    turns = [f"user\n{text}" for text in _caption_corpus()] + ["assistant\n"] * 10
    return build_tokenizer(turns, VOCAB_SIZE)


def build_text_encoder(vocab_size: int) -> Qwen3Model:
    """An untrained three-layer Qwen3; prompt embeddings are its last but one hidden state."""
    config = Qwen3Config(
        vocab_size=vocab_size,
        hidden_size=TEXT_DIM,
        intermediate_size=256,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=512,
        tie_word_embeddings=True,
    )
    return Qwen3Model(config)


def token_ids(tokenizer: Qwen2Tokenizer, captions: list[str]) -> list[Tensor]:
    """Ids of each caption inside the chat template, without padding."""
    templated = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True
        )
        for text in captions
    ]
    return [torch.tensor(ids) for ids in tokenizer(templated)["input_ids"]]


def embed(text_encoder: Qwen3Model, ids: list[Tensor]) -> list[Tensor]:
    """Prompt embeddings (T_i, D) of id lists; padded on the right, which a causal model ignores."""
    padded = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True)
    hidden = text_encoder(input_ids=padded, output_hidden_states=True).hidden_states[-2]
    return [rows[: len(own)] for rows, own in zip(hidden, ids, strict=True)]
