"""Held-out losses at fixed noise: does the predictor listen to the references?"""

# N styles, K targets a style, S noise levels, F references, C channels, h w latent cells

from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist

from i2l_model.backbones import Backbone
from jobs.training.config import TrainingConfig
from jobs.training.encoding import by_shape, encode_batch, references_of
from jobs.training.loading import BatchLoader
from jobs.training.noise import fixed_noise
from jobs.training.objective import StyleObjective, Supervision, supervised_loss
from jobs.training.sampling import StyleBatch, pair_of_visit, stack_groups
from jobs.training.sharding import even_passes
from jobs.training.sigma_bands import HIGH_SIGMA

_VALIDATION = 1_000_003  # keeps validation's random choices apart from training's
CONDITIONS = ("right", "wrong", "null")


@dataclass(frozen=True, slots=True)
class _Group:
    """What one style is validated on; references are rows of the batch, wrong ones the next."""

    right: int
    wrong: int
    data_KChw: torch.Tensor
    noise_KSChw: torch.Tensor
    prompt_embeds: list[torch.Tensor]


class Validator:
    """Measures the same styles, targets, noise and noise levels every time.

    Args:
        loader: Loads from the val split.
        backbone: Frozen backbone.
        config: How many styles, targets and noise levels.
    """

    def __init__(self, loader: BatchLoader, backbone: Backbone, config: TrainingConfig) -> None:
        self.loader = loader
        self.config = config
        self.batch = self._fixed_batch()
        refs = {"ref_images": loader.ref_images(self.batch.refs_NF[self.batch.present].tolist())}
        self.references = references_of(self.batch, refs)
        self._sigmas_S = torch.tensor(config.validation_sigmas)
        self._own = self._own_groups(backbone)

    def _fixed_batch(self) -> StyleBatch:
        index, buckets = self.loader.index, self.loader.buckets
        rng = np.random.default_rng([self.config.seed, _VALIDATION])
        num_styles = len(index.styles)
        styles = rng.permutation(num_styles)[: self.config.validation_styles].tolist()
        seeds = [[self.config.seed, _VALIDATION, style] for style in styles]
        num_refs, num_targets = self.config.max_refs, self.config.validation_targets
        pairs = [pair_of_visit(index, self.config.seed, style, 0) for style in styles]
        return stack_groups(index, buckets, styles, pairs, num_refs, num_targets, seeds)

    def _own_groups(self, backbone: Backbone) -> list[tuple[_Group, float]]:
        """This rank's groups and weights; all ranks have equally many, padded at weight 0."""
        num_styles, world_size = len(self.batch), dist.get_world_size()
        num_targets, num_sigmas = self.batch.targets_NK.shape[1], len(self._sigmas_S)
        groups = []
        for turn in range(-(-num_styles // world_size)):
            n = dist.get_rank() + turn * world_size
            weight = float(n < num_styles)
            n = n % num_styles
            one = self.batch.part(n)
            encoded = encode_batch(backbone, self.loader.index, one, self.loader.load(one))
            data = encoded.data[0]
            seed, num = self.config.seed + n, num_targets * num_sigmas
            noise = fixed_noise(backbone, seed, num, data.shape[1:])
            group = _Group(
                right=n,
                wrong=(n - 1) % num_styles,
                data_KChw=data,
                noise_KSChw=noise.unflatten(0, (num_targets, num_sigmas)),
                prompt_embeds=encoded.prompt_embeds[0],
            )
            groups.append((group, weight))
        return groups

    @torch.no_grad()
    def losses(self, objective: StyleObjective) -> dict[str, float]:
        """Mean velocity errors with right, wrong and no references; all ranks call it together.

        Returns:
            ``val/loss_<condition>``, over all noise levels, and ``val/loss_<condition>_high_sigma``
            over those above 0.7. With a single style there are no wrong references.
        """
        sums_CS = torch.zeros(len(CONDITIONS), len(self._sigmas_S), dtype=torch.float64)
        size = self.config.micro_styles
        for start in range(0, len(self._own), size):
            chunk = self._own[start : start + size]
            sums_CS += self._chunk_sums(objective, chunk)
        sums_CS = sums_CS.to(objective.backbone.device)
        dist.all_reduce(sums_CS)
        means_CS = sums_CS.cpu() / len(self.batch)
        metrics = {}
        high = self._sigmas_S > HIGH_SIGMA
        for condition, mean_S in zip(CONDITIONS, means_CS, strict=True):
            if condition == "wrong" and len(self.batch) < 2:
                continue
            metrics[f"val/loss_{condition}"] = float(mean_S.mean())
            if bool(high.any()):
                metrics[f"val/loss_{condition}_high_sigma"] = float(mean_S[high].mean())
        return metrics

    def _chunk_sums(
        self, objective: StyleObjective, chunk: list[tuple[_Group, float]]
    ) -> torch.Tensor:
        """Weighted sums over the chunk's styles of their mean losses, (conditions, S) float64."""
        groups = [group for group, _ in chunk]
        weights_N = torch.tensor([weight for _, weight in chunk], dtype=torch.float64)
        conditions = (
            objective.predict(self.references.rows([group.right for group in groups])),
            objective.predict(self.references.rows([group.wrong for group in groups])),
            None,
        )
        sums_CS = torch.zeros(len(CONDITIONS), len(self._sigmas_S), dtype=torch.float64)
        parts = by_shape([group.data_KChw for group in groups])
        for members in even_passes(parts, self.config, objective.backbone.device):
            supervision = self._supervision([groups[n] for n in members])
            for row, factors in enumerate(conditions):
                own = None if factors is None else factors.select(members)
                loss_B = supervised_loss(objective.backbone, supervision, own).double().cpu()
                loss_NKS = loss_B.view(len(members), -1, len(self._sigmas_S))
                sums_CS[row] += (loss_NKS.mean(dim=1) * weights_N[members, None]).sum(dim=0)
            weights_N[members] = 0  # of a repetition
        return sums_CS

    def _supervision(self, groups: list[_Group]) -> Supervision:
        num_sigmas = len(self._sigmas_S)
        data = torch.cat([group.data_KChw for group in groups])
        embeds = [embed for group in groups for embed in group.prompt_embeds]
        return Supervision(
            data_BChw=data.repeat_interleave(num_sigmas, dim=0),
            noise_BChw=torch.cat([group.noise_KSChw.flatten(0, 1) for group in groups]),
            sigmas_B=self._sigmas_S.repeat(len(data)),
            prompt_embeds=[embed for embed in embeds for _ in range(num_sigmas)],
        )
