"""The predictor's single-stream transformer."""

# N batch, S tokens, D dim, H heads

import torch
import torch.nn.functional as F
from torch import nn

_MLP_RATIO = 4


class SingleStreamTransformer(nn.Module):
    """Pre-norm blocks over one sequence, which starts with the tokens that are read out.

    Args:
        dim: Features of a token.
        depth: Number of blocks.
        num_heads: Attention heads; divides dim.
    """

    def __init__(self, dim: int, depth: int, num_heads: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(dim, num_heads) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)

    def forward(
        self, tokens: torch.Tensor, key_bias: torch.Tensor | None, num_outputs: int
    ) -> torch.Tensor:
        """Return the first ``num_outputs`` tokens after all blocks, normalised.

        Args:
            tokens: (N, S, D).
            key_bias: (N, S) added to the attention logits of each key, -inf masks it; or None.
            num_outputs: Leading tokens to return; the last block computes no others.
        """
        bias = None if key_bias is None else key_bias[:, None, None, :]
        *blocks, last = self.blocks
        for block in blocks:
            tokens = block(tokens, bias, tokens.shape[1])
        outputs: torch.Tensor = self.norm(last(tokens, bias, num_outputs))
        return outputs


class Block(nn.Module):
    """Attention with normalised queries and keys, then an MLP, each on a residual path."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.attention_norm = nn.LayerNorm(dim)
        self.to_q = nn.Linear(dim, dim, bias=False)
        self.to_kv = nn.Linear(dim, 2 * dim, bias=False)
        self.q_norm = nn.LayerNorm(dim // num_heads, bias=False)
        self.k_norm = nn.LayerNorm(dim // num_heads, bias=False)
        self.to_out = nn.Linear(dim, dim)
        self.mlp_norm = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(
            nn.Linear(dim, _MLP_RATIO * dim),
            nn.GELU(approximate="tanh"),
            nn.Linear(_MLP_RATIO * dim, dim),
        )

    def forward(
        self, tokens: torch.Tensor, bias: torch.Tensor | None, num_outputs: int
    ) -> torch.Tensor:
        """Return the first ``num_outputs`` tokens (N, num_outputs, D); they attend to all S."""
        normed = self.attention_norm(tokens)
        query = self.q_norm(self._split(self.to_q(normed[:, :num_outputs])))
        key, value = (self._split(part) for part in self.to_kv(normed).chunk(2, dim=-1))
        query, key, value = (x.transpose(1, 2) for x in (query, self.k_norm(key), value))
        mask = None if bias is None else bias.to(query.dtype)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        tokens = tokens[:, :num_outputs] + self.to_out(mixed.transpose(1, 2).flatten(2))
        outputs: torch.Tensor = tokens + self.mlp(self.mlp_norm(tokens))
        return outputs

    def _split(self, x: torch.Tensor) -> torch.Tensor:
        return x.view(*x.shape[:-1], self.num_heads, -1)
