import torch

from i2l_model.transformer import SingleStreamTransformer


def model() -> SingleStreamTransformer:
    torch.manual_seed(0)
    return SingleStreamTransformer(dim=24, depth=3, num_heads=2)


def test_reading_out_fewer_tokens_does_not_change_them():
    transformer, tokens = model(), torch.randn(2, 9, 24)
    everything = transformer(tokens, None, 9)
    torch.testing.assert_close(transformer(tokens, None, 4), everything[:, :4])


def test_masked_keys_have_no_effect_and_zero_bias_none():
    transformer, tokens = model(), torch.randn(2, 9, 24)
    bias = torch.zeros(2, 9)
    torch.testing.assert_close(transformer(tokens, bias, 4), transformer(tokens, None, 4))
    bias[:, 7:] = -torch.inf
    torch.testing.assert_close(transformer(tokens, bias, 4), transformer(tokens[:, :7], None, 4))


def test_log_bias_counts_a_key_that_often():
    transformer, tokens = model(), torch.randn(1, 6, 24)
    bias = torch.zeros(1, 6)
    bias[:, 5] = torch.log(torch.tensor(2.0))
    doubled = torch.cat([tokens, tokens[:, 5:]], dim=1)
    torch.testing.assert_close(transformer(tokens, bias, 5), transformer(doubled, None, 5))


def test_gradients_reach_every_weight():
    transformer = model()
    tokens = torch.randn(2, 9, 24, requires_grad=True)
    transformer(tokens, None, 4).square().sum().backward()
    assert tokens.grad is not None
    assert tokens.grad[:, 4:].abs().max() > 0
    assert all(parameter.grad is not None for parameter in transformer.parameters())
