"""The frozen backbone in shares: a group of workers holds its transformer together (FSDP2).

A block's weights are gathered when a pass comes to it, forward and backward, and dropped behind it.
All workers of a group therefore go through the transformer equally often.
"""

from itertools import pairwise
from typing import TypeVar

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

from i2l_model.backbones import Backbone
from jobs.training.config import TrainingConfig

_Part = TypeVar("_Part")


def shard_backbone(backbone: Backbone, num_shards: int, device: str) -> None:
    """Leave each worker a share of the transformer's weights; all workers call it together.

    Args:
        backbone: On the CPU, so that no GPU ever holds the whole transformer; its encoders, which
            stay whole, go to the device too.
        num_shards: Workers of a group; the last of them share what does not divide.
        device: "cpu" or "cuda".
    """
    mesh = _group_mesh(num_shards, device)
    for name in backbone.lora_blocks():
        fully_shard(backbone.transformer.get_submodule(name), mesh=mesh)
    fully_shard(backbone.transformer, mesh=mesh, reshard_after_forward=True)
    register_fsdp_forward_method(backbone.transformer, backbone.entry_point)
    for encoder in backbone.encoders.values():
        encoder.to(mesh.device_type)


def _group_mesh(num_shards: int, device: str) -> DeviceMesh:
    """The workers of this one's group.

    Ray numbers the workers of a machine one after the other, so that a group of neighbours is on
    one machine where its number allows it. Lost workers leave no group with fewer than
    ``num_shards``, unless all together are fewer.
    """
    world_size = dist.get_world_size()
    num_groups = max(1, world_size // num_shards)
    borders = [world_size * group // num_groups for group in range(num_groups + 1)]
    ranks = [list(range(*pair)) for pair in pairwise(borders)]
    group, _ = dist.new_subgroups_by_enumeration(ranks)
    return DeviceMesh.from_group(group, device)


def even_passes(parts: list[_Part], config: TrainingConfig, device: torch.device) -> list[_Part]:
    """As many parts on every worker, where a sharded backbone needs it.

    Targets of several sizes are as many passes, which workers may have different numbers of. The
    last part is repeated; what is computed from a repetition must not count.
    """
    if config.backbone_shards == 1 or not config.aspect_buckets:
        return parts
    most = torch.tensor(len(parts), device=device)
    dist.all_reduce(most, dist.ReduceOp.MAX)
    return parts + parts[-1:] * (int(most) - len(parts))
