import numpy as np
import pytest
import torch
from transformers import Qwen2Tokenizer

from jobs.backbone.text import build_caption_tokenizer, build_text_encoder, embed, token_ids
from jobs.corpus.captions import caption
from jobs.corpus.contents import CONTENT_NAMES
from jobs.corpus.styles import sample_style


@pytest.fixture(scope="module")
def tokenizer() -> Qwen2Tokenizer:
    return build_caption_tokenizer()


def test_every_caption_fits_one_block_of_32_tokens(tokenizer: Qwen2Tokenizer) -> None:
    rng = np.random.default_rng(1)
    captions = [caption(name, rng, sample_style(i, 3)) for i, name in enumerate(CONTENT_NAMES * 20)]
    assert max(len(ids) for ids in token_ids(tokenizer, captions)) <= 32


def test_any_text_round_trips(tokenizer: Qwen2Tokenizer) -> None:
    text = "Ünïcode zebra, 12 🦓"
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_saved_tokenizer_gives_the_same_ids(tokenizer: Qwen2Tokenizer, tmp_path: str) -> None:
    tokenizer.save_pretrained(tmp_path)
    loaded = Qwen2Tokenizer.from_pretrained(tmp_path)
    captions = ["a star under a moon", "there is a house beside a tree, red on dark blue"]
    for ours, theirs in zip(
        token_ids(tokenizer, captions), token_ids(loaded, captions), strict=True
    ):
        assert torch.equal(ours, theirs)


def test_padding_does_not_change_embeddings(tokenizer: Qwen2Tokenizer) -> None:
    torch.manual_seed(0)
    encoder = build_text_encoder(len(tokenizer)).eval()
    ids = token_ids(tokenizer, ["a star", "a picture of a house beside a tree, no outline"])
    with torch.inference_mode():
        alone, together = embed(encoder, ids[:1])[0], embed(encoder, ids)[0]
    assert alone.shape == together.shape
    assert torch.allclose(alone, together, atol=1e-5)
