"""The model: Qwen3-VL's language model over text, one time token and patches of pixels.

Module names are those of the released checkpoint, which loads with nothing left over.
"""

# B batch, T text tokens with the time token last, N patches, P values of a patch, D features

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration, Qwen3VLModel

from i2l_model.backbones.hidream_o1.layout import attention_mask, position_ids

PATCH_PX = 32
PATCH_VALUES = 3 * PATCH_PX**2
_TIME_CHANNELS = 256
_TIME_SCALE = 1000.0
_MAX_PERIOD = 10_000.0


class HiDreamO1Model(Qwen3VLModel):  # type: ignore[misc]
    """Predicts clean patches from noisy ones; its own parts are the three embedders.

    The frequencies of the rotary embedding stay float32 whatever the model is cast to: in bfloat16
    they would be off by a third of a turn at the patches' positions.

    Args:
        config: Of the whole checkpoint.
    """

    def __init__(self, config: Qwen3VLConfig) -> None:
        super().__init__(config)
        dim = config.text_config.hidden_size
        self.t_embedder1 = _TimeEmbedder(dim)
        self.x_embedder = _PatchEmbedder(dim)
        self.final_layer2 = _FinalLayer(dim)
        self.post_init()

    def predict_patches(
        self,
        patches: torch.Tensor,
        times: torch.Tensor,
        ids: torch.Tensor,
        num_ids: torch.Tensor,
        grid: tuple[int, int],
    ) -> torch.Tensor:
        """Return the clean patches (B, N, P) float32.

        Args:
            patches: (B, N, P) noisy, row by row.
            times: (B,) in [0, 1], 1 = clean.
            ids: (B, T) token ids, padded on the left; the last of a row is the time token.
            num_ids: (B,) ids of each row that are no padding.
            grid: Rows and columns of patches.
        """
        text = self.language_model.embed_tokens(ids)
        time = self.t_embedder1(times, text.dtype)[:, None]
        image = self.x_embedder(patches.to(text.dtype))
        num_patches = patches.shape[1]
        hidden = self.language_model(
            inputs_embeds=torch.cat([text[:, :-1], time, image], dim=1),
            attention_mask=attention_mask(num_ids, ids.shape[1], num_patches),
            position_ids=position_ids(num_ids, ids.shape[1], grid),
            use_cache=False,
        ).last_hidden_state
        clean: torch.Tensor = self.final_layer2(hidden[:, -num_patches:])
        return clean.float()

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Any:
        result = super()._apply(fn, recurse)
        rotary: Any = self.language_model.rotary_emb
        if rotary.inv_freq.dtype != torch.float32:
            exact, _ = rotary.compute_default_rope_parameters(rotary.config)
            rotary.inv_freq = exact.to(rotary.inv_freq.device)
            rotary.original_inv_freq = rotary.inv_freq.clone()
        return result


class HiDreamO1ForImageGeneration(Qwen3VLForConditionalGeneration):  # type: ignore[misc]
    """The checkpoint as it is released: the model, and a language head that is not used here."""

    def __init__(self, config: Qwen3VLConfig) -> None:
        super().__init__(config)
        self.model = HiDreamO1Model(config)
        self.post_init()


class _TimeEmbedder(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(_TIME_CHANNELS, dim), nn.SiLU(), nn.Linear(dim, dim))

    def forward(self, times: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        half = _TIME_CHANNELS // 2
        steps = torch.arange(half, dtype=torch.float32, device=times.device)
        angles = _TIME_SCALE * times.float()[:, None] * _MAX_PERIOD ** (-steps / half)
        embedded: torch.Tensor = self.mlp(torch.cat([angles.cos(), angles.sin()], 1).to(dtype))
        return embedded


class _PatchEmbedder(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj1 = nn.Linear(PATCH_VALUES, dim // 4, bias=False)
        self.proj2 = nn.Linear(dim // 4, dim)

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        embedded: torch.Tensor = self.proj2(self.proj1(patches))
        return embedded


class _FinalLayer(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, PATCH_VALUES)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        patches: torch.Tensor = self.linear(hidden)
        return patches
