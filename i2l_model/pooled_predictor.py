"""Version 1, the baseline: pooled image features straight into the heads, no queries.

The earlier release's form: for each layer and side ``features -> c -> rank * (in or out)``.
"""

# N LoRAs, K references, E encoder features, G layers of a group, R rank, F in or out features

import torch
import torch.nn.functional as F

from i2l_model.heads import CompressedHeads
from i2l_model.predictor import LoraPredictor
from i2l_model.predictor_config import PredictorConfig


class PooledPredictor(LoraPredictor):
    """Predicts one LoRA for each reference and joins those of a row along the rank.

    The joined update is the mean over the references, or their weighted mean: rank K * R.

    Args:
        config: Its sizes; ``compress_dim`` is c.
    """

    def __init__(self, config: PredictorConfig) -> None:
        super().__init__(config, pooled=True)
        self.heads = CompressedHeads(
            config.targets,
            dim=sum(tower.hidden_size for tower in self.towers.values()),
            compress_dim=config.compress_dim,
            rank=config.rank,
            queries_per_factor=1,
        )

    def decode(self, tokens: tuple[torch.Tensor, ...], shares: torch.Tensor) -> list[torch.Tensor]:
        """Return the LoRAs' rows (G, N, K * R, F) of features (N, K, 1, E) and shares (N, K)."""
        N, K = shares.shape
        features = torch.cat(  # of unit size, as the heads expect their input
            [F.layer_norm(part.to(self.dtype), part.shape[-1:]) for part in tokens], dim=-1
        ).flatten(0, 1)
        rows = self.heads(features.expand(-1, self.heads.num_queries, -1), self.config.lora_scale)
        weights = shares.to(rows[0])[None, :, :, None, None]
        joined = []
        for head, part in zip(self.heads.in_order(), rows, strict=True):
            part = part.unflatten(1, (N, K))
            if head.group.side == "A":
                part = part * weights
            joined.append(part.flatten(2, 3))
        return joined
