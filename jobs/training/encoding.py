"""From a loaded batch to what the objective reads: frozen encoders fill in what is not cached."""

# N styles, K targets a style, F references, M of them present, B = N * K, C channels, h w cells

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from i2l_model.backbones import Backbone
from jobs.training.loading import Loaded
from jobs.training.noise import GroupNoise
from jobs.training.objective import References, Supervision
from jobs.training.pair_index import PairIndex
from jobs.training.sampling import StyleBatch


@dataclass(frozen=True, slots=True)
class EncodedBatch:
    """A batch as the objective reads it, without noise.

    Attributes:
        references: Of N styles.
        data: Clean latents (K, C, h, w) float32 of each style.
        prompt_embeds: K tensors of each style, from `Backbone.encode_prompts`.
    """

    references: References
    data: list[torch.Tensor]
    prompt_embeds: list[list[torch.Tensor]]


def encode_batch(
    backbone: Backbone, index: PairIndex, batch: StyleBatch, loaded: Loaded
) -> EncodedBatch:
    """Encode what the loaded batch holds as pixels and texts."""
    num_styles, num_targets = batch.targets_NK.shape
    targets = [loaded[f"targets.{n}"] for n in range(num_styles)]
    embeds = _prompt_embeds(backbone, index, batch, loaded)
    return EncodedBatch(
        references=references_of(batch, loaded),
        data=_latents(backbone, targets),
        prompt_embeds=[embeds[n * num_targets : (n + 1) * num_targets] for n in range(num_styles)],
    )


def references_of(batch: StyleBatch, loaded: Loaded) -> References:
    """The present references of a batch, spread over the places that they have in it."""
    mask_NF = torch.from_numpy(batch.present)

    def spread(rows_M: torch.Tensor) -> torch.Tensor:
        full = rows_M.new_zeros(*mask_NF.shape, *rows_M.shape[1:])
        full[mask_NF] = rows_M
        return full

    if "ref_images" in loaded:
        return References(mask_NF, images_NF3SS=spread(loaded["ref_images"]))
    names = sorted(name for name in loaded if name.startswith("ref_tokens."))
    return References(mask_NF, tokens=tuple(spread(loaded[name]) for name in names))


def encode_pixels(backbone: Backbone, images_U3HW: torch.Tensor) -> torch.Tensor:
    """Latents (U, C, h, w) float32 on the CPU of uint8 images."""
    return backbone.encode_images(images_U3HW.float() / 127.5 - 1).float().cpu()


def _latents(backbone: Backbone, targets: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    if targets[0].dtype != torch.uint8:
        return list(targets)
    latents: dict[int, torch.Tensor] = {}
    for members in by_shape(targets):
        encoded = encode_pixels(backbone, torch.cat([targets[n] for n in members]))
        latents |= dict(zip(members, encoded.chunk(len(members)), strict=True))
    return [latents[n] for n in range(len(targets))]


def _prompt_embeds(
    backbone: Backbone, index: PairIndex, batch: StyleBatch, loaded: Loaded
) -> list[torch.Tensor]:
    rows = batch.targets_NK.reshape(-1).tolist()
    if "prompts.0" in loaded:
        return [loaded[f"prompts.{b}"].to(backbone.device) for b in range(len(rows))]
    return backbone.encode_prompts([index.prompt(row) for row in rows])


def supervise(
    encoded: EncodedBatch, noise: Sequence[GroupNoise]
) -> list[tuple[list[int], Supervision]]:
    """Join the groups of each size, and say which styles they are of.

    Args:
        encoded: N styles.
        noise: Of each style.
    """
    return [
        (
            members,
            Supervision(
                data_BChw=torch.cat([encoded.data[n] for n in members]),
                noise_BChw=torch.cat([noise[n].noise_KChw for n in members]),
                sigmas_B=torch.cat([noise[n].sigmas_K for n in members]),
                prompt_embeds=[embed for n in members for embed in encoded.prompt_embeds[n]],
            ),
        )
        for members in by_shape(encoded.data)
    ]


def by_shape(tensors: Sequence[torch.Tensor]) -> list[list[int]]:
    """Positions of the tensors of each shape, shapes in order of appearance."""
    positions: dict[torch.Size, list[int]] = {}
    for position, tensor in enumerate(tensors):
        positions.setdefault(tensor.shape, []).append(position)
    return list(positions.values())
