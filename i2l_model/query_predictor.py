"""Version 2: learned queries and the references' patch tokens go through one transformer.

Only the query outputs are decoded, by compressed heads, into lora_A and lora_B (paper section on
the i2L architecture).
"""

# N LoRAs, K references, T tokens of an image, E encoder features, D dim, G layers of a group

import torch
from torch import nn

from i2l_model.heads import CompressedHeads
from i2l_model.predictor import LoraPredictor
from i2l_model.predictor_config import PredictorConfig
from i2l_model.transformer import SingleStreamTransformer


class LearnedQueries(nn.Module):
    """The queries, the same for every LoRA."""

    def __init__(self, num_queries: int, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(num_queries, dim))

    def forward(self, num_loras: int) -> torch.Tensor:
        """Return them as (N, num_queries, D)."""
        return self.weight.expand(num_loras, -1, -1)


class QueryPredictor(LoraPredictor):
    """Predicts LoRAs of fixed rank; the references share the attention according to their weights.

    Tokens of a second encoder have a projection of their own and stand beside those of the first.

    Args:
        config: Its sizes.
    """

    def __init__(self, config: PredictorConfig) -> None:
        super().__init__(config, pooled=False)
        self.projection = nn.Linear(self.encoder.hidden_size, config.dim)
        if config.dinov3 is not None:
            self.dinov3_projection = nn.Linear(self.dinov3.hidden_size, config.dim)
        self.heads = CompressedHeads(
            config.targets,
            dim=config.dim,
            compress_dim=config.compress_dim,
            rank=config.rank,
            queries_per_factor=config.queries_per_factor,
        )
        self.queries = LearnedQueries(self.heads.num_queries, config.dim)
        self.transformer = SingleStreamTransformer(config.dim, config.depth, config.num_heads)

    def decode(self, tokens: tuple[torch.Tensor, ...], shares: torch.Tensor) -> list[torch.Tensor]:
        """Return the LoRAs' rows (G, N, R, F) of tokens (N, K, T, E) and shares (N, K)."""
        N, K = shares.shape
        projections = [self.projection]
        if self.config.dinov3 is not None:
            projections.append(self.dinov3_projection)
        refs = torch.cat(
            [
                projection(part.to(self.dtype)).flatten(1, 2)
                for projection, part in zip(projections, tokens, strict=True)
            ],
            dim=1,
        )
        queries = self.queries(N).to(refs.dtype)
        key_bias = None
        if K > 1:
            log_shares = shares.to(refs).log()
            biases = [log_shares.repeat_interleave(part.shape[2], dim=1) for part in tokens]
            key_bias = torch.cat([refs.new_zeros(N, queries.shape[1]), *biases], dim=1)
        outputs = self.transformer(torch.cat([queries, refs], dim=1), key_bias, queries.shape[1])
        rows: list[torch.Tensor] = self.heads(outputs, self.config.lora_scale)
        return rows
