import torch

from i2l_model.backbones.tiny import build_tiny_zimage, build_tokenizer


def test_the_seed_decides_the_weights_and_the_global_state_stays(backbone):
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    again, other = build_tiny_zimage(0), build_tiny_zimage(1)
    assert torch.equal(torch.rand(1), expected)
    name = "layers.0.attention.to_q.weight"
    weight = backbone.transformer.state_dict()[name]
    assert torch.equal(again.transformer.state_dict()[name], weight)
    assert not torch.equal(other.transformer.state_dict()[name], weight)


def test_tokenizer_returns_any_text():
    text = "naïve  Café\n\t日本 🎨 <b>"
    for tokenizer in (build_tokenizer(), build_tokenizer([text] * 3, vocab_size=280)):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_tokenizer_learns_merges_and_keeps_its_ids():
    texts = ["a red circle", "a red square", "a blue circle"] * 5
    tokenizer = build_tokenizer(texts, vocab_size=300)
    assert len(tokenizer("a red circle")["input_ids"]) < len("a red circle") / 2
    assert len(tokenizer) <= 300
    assert tokenizer.convert_tokens_to_ids("<|endoftext|>") == tokenizer.pad_token_id == 0


def test_chat_turn_has_qwens_form():
    turn = build_tokenizer().apply_chat_template(
        [{"role": "user", "content": "a cat"}],
        tokenize=False,
        add_generation_prompt=True,
        enable_thinking=True,
    )
    assert turn == "<|im_start|>user\na cat<|im_end|>\n<|im_start|>assistant\n"
    ids = build_tokenizer()(turn)["input_ids"]
    assert ids.count(1) == 2
    assert ids.count(2) == 1
