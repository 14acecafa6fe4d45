"""Latents and prompt embeddings of the targets, computed once where memory allows."""

# U distinct targets, B rows of a batch, C channels, h w latent cells, T tokens, D features

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
import torch.distributed as dist

from i2l_model.backbones import Backbone
from jobs.training.data import PairStore

Report = Callable[[str, int, int], None]  # (stage, done, total)


class TargetEncoder(Protocol):
    """Gives the backbone's inputs for rows of a store's targets."""

    def latents(self, rows: np.ndarray) -> torch.Tensor:
        """Return the clean latents (B, C, h, w) float32."""
        ...

    def prompt_embeds(self, rows: np.ndarray) -> list[torch.Tensor]:
        """Return B tensors of `Backbone.encode_prompts`."""
        ...


class OnlineEncoder:
    """Encodes at every call: for data whose latents do not fit into memory."""

    def __init__(self, backbone: Backbone, store: PairStore) -> None:
        self._backbone = backbone
        self._store = store

    def latents(self, rows: np.ndarray) -> torch.Tensor:
        """Return the clean latents (B, C, h, w) float32."""
        return encode_pixels(self._backbone, self._store.targets_U3SS[rows])

    def prompt_embeds(self, rows: np.ndarray) -> list[torch.Tensor]:
        """Return B tensors of `Backbone.encode_prompts`."""
        return self._backbone.encode_prompts([self._store.prompts[row] for row in rows])


class CachedEncoder:
    """Encodes all targets and prompts at the start; the ranks share the work.

    Chunks are cut by position, whatever the number of ranks, so that every run computes the same
    values.

    Args:
        backbone: Frozen backbone.
        store: Pairs whose targets are encoded.
        chunk_size: Images or prompts encoded at once.
        report: Called after each of this rank's chunks.
    """

    def __init__(
        self, backbone: Backbone, store: PairStore, chunk_size: int, report: Report
    ) -> None:
        self._backbone = backbone
        prompts = sorted(set(store.prompts))
        number = {prompt: i for i, prompt in enumerate(prompts)}
        self._prompt_of_row = np.array([number[prompt] for prompt in store.prompts])
        self._latents = self._encode_images(store.targets_U3SS, chunk_size, report)
        self._embeds = self._encode_prompts(prompts, chunk_size, report)

    def latents(self, rows: np.ndarray) -> torch.Tensor:
        """Return the clean latents (B, C, h, w) float32, on the CPU."""
        return self._latents[rows]

    def prompt_embeds(self, rows: np.ndarray) -> list[torch.Tensor]:
        """Return B tensors of `Backbone.encode_prompts`, on the backbone's device."""
        return [self._embeds[i] for i in self._prompt_of_row[rows]]

    def _encode_images(
        self, images_U3SS: torch.Tensor, chunk_size: int, report: Report
    ) -> torch.Tensor:
        num = len(images_U3SS)
        size = images_U3SS.shape[-1]
        latents = torch.zeros(num, *self._backbone.latent_shape(size, size))
        for rows in _own_chunks(num, chunk_size):
            latents[rows] = encode_pixels(self._backbone, images_U3SS[rows])
            report("encode images", rows.stop, num)
        _sum_over_ranks(latents, self._backbone.device)
        report("encode images", num, num)
        return latents

    def _encode_prompts(
        self, prompts: Sequence[str], chunk_size: int, report: Report
    ) -> list[torch.Tensor]:
        device = self._backbone.device
        num = len(prompts)
        lengths = torch.zeros(num, dtype=torch.long)
        chunks = []
        for rows in _own_chunks(num, chunk_size):
            embeds = self._backbone.encode_prompts(prompts[rows])
            lengths[rows] = torch.tensor([len(embed) for embed in embeds])
            chunks.append((rows, embeds))
            report("encode prompts", rows.stop, num)
        _sum_over_ranks(lengths, device)
        example = self._backbone.encode_prompts(prompts[:1])[0]
        dtype = self._backbone.dtype if example.is_floating_point() else example.dtype
        table = torch.zeros(num, int(lengths.max()), *example.shape[1:], dtype=dtype)
        for rows, embeds in chunks:
            for row, embed in zip(range(rows.start, rows.stop), embeds, strict=True):
                table[row, : len(embed)] = embed.to("cpu", dtype)
        _sum_over_ranks(table, device)
        report("encode prompts", num, num)
        # One tensor a prompt: a view would keep the whole table's rows at the longest length.
        lists = zip(table, lengths.tolist(), strict=True)
        return [row[:length].clone().to(device) for row, length in lists]


def encode_pixels(backbone: Backbone, images_U3SS: torch.Tensor) -> torch.Tensor:
    """Latents (U, C, h, w) float32 on the CPU of uint8 images."""
    return backbone.encode_images(images_U3SS.float() / 127.5 - 1).float().cpu()


def _own_chunks(num: int, chunk_size: int) -> list[slice]:
    starts = range(0, num, chunk_size)
    own = range(dist.get_rank(), len(starts), dist.get_world_size())
    return [slice(starts[i], min(num, starts[i] + chunk_size)) for i in own]


def _sum_over_ranks(values: torch.Tensor, device: torch.device, rows: int = 256) -> None:
    """Fill in what other ranks computed, in place; rows of others are zero on this rank."""
    for start in range(0, len(values), rows):
        part = values[start : start + rows].to(device)
        dist.all_reduce(part)
        values[start : start + rows] = part.cpu()
