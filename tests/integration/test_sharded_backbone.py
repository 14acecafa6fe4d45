"""A frozen transformer that two processes hold together does what a whole one does."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from i2l_model.generation import sample_latents
from jobs.registry.tracking import TrackingConfig
from jobs.training import trainer, worker
from jobs.training.config import TrainingConfig
from jobs.training.inputs import TrainingInputs
from jobs.training.job import TrainingJob
from jobs.training.recorder import Recorder
from jobs.training.sharding import shard_backbone
from jobs.training.trainer import Trainer
from tests.pair_shards import write_pairs
from tests.tiny_backbones import build_tiny, random_factors
from tests.training_inputs import make_inputs

pytestmark = pytest.mark.slow

FAMILIES = ("z-image", "flux2", "hidream-o1")


def run_ranks(target: object, folder: Path, *arguments: object) -> None:
    """Run a function of this file in two processes that form a group; a failure of one fails."""
    start = torch.multiprocessing.get_context("spawn").Process
    ranks = [
        start(target=in_group, args=(target, folder / "rendezvous", rank, *arguments))
        for rank in range(2)
    ]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(300)
        process.kill()
    assert [process.exitcode for process in ranks] == [0, 0]


def in_group(target: object, rendezvous: Path, rank: int, *arguments: object) -> None:
    os.environ["LOCAL_RANK"] = str(rank)
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=2)
    target(*arguments)
    dist.destroy_process_group()


def compare_families() -> None:
    for family in FAMILIES:
        whole = outputs(family, sharded=False)
        for number, (ours, wanted) in enumerate(zip(outputs(family, True), whole, strict=True)):
            torch.testing.assert_close(ours, wanted, rtol=0, atol=1e-6, msg=f"{family} {number}")


def outputs(family: str, sharded: bool) -> list[torch.Tensor]:
    """Pictures before anything else, then gradients of two passes, with recomputed blocks."""
    backbone = build_tiny(family)
    backbone.enable_gradient_checkpointing()
    num_bytes = local_bytes(backbone.transformer)
    if sharded:
        shard_backbone(backbone, 2, "cpu")
        assert local_bytes(backbone.transformer) < 0.51 * num_bytes
    lora = random_factors(backbone.lora_targets(), num_loras=2)
    options = {"lora": lora, "seeds": [1, 2], "num_inference_steps": 2}
    drawn = sample_latents(backbone, ["a star", "a house"], **options)
    leaves = [factor.requires_grad_() for factor in lora.lora_B.values()]
    latents = torch.randn(drawn.shape, generator=torch.Generator().manual_seed(dist.get_rank()))
    embeds = backbone.encode_prompts(["a star", "a house"])
    velocity = backbone.velocity(latents, torch.tensor([0.9, 0.4]), embeds, lora)
    other = backbone.velocity(latents, torch.tensor([0.2, 0.6]), embeds, lora)
    (velocity.square() + other.square()).mean().backward()
    if sharded:
        assert local_bytes(backbone.transformer) < 0.51 * num_bytes
    return [drawn, velocity.detach(), *(leaf.grad for leaf in leaves)]


def local_bytes(module: torch.nn.Module) -> int:
    """Bytes of the weights that this process holds."""
    return sum(getattr(w, "_local_tensor", w).nbytes for w in module.parameters())


def test_every_family_computes_the_same(tmp_path: Path) -> None:
    run_ranks(compare_families, tmp_path)


def train(folder: Path, inputs: TrainingInputs, changes: dict[str, object]) -> Trainer:
    job = TrainingJob(
        config=TrainingConfig.model_validate(changes),
        inputs=inputs,
        output_uri=str(folder),
        tracking=TrackingConfig(),
        device="cpu",
        init_uri=None,
        attempt_uri=str(folder),
        origin={"key": "k", "run_id": "r"},
    )
    built = worker.build_trainer(job, Recorder(job, rank=1))
    for step in range(job.config.steps):
        built.train_step(step)
    built.validate(job.config.steps)
    return built


def compare_trainings(folder: Path, inputs: TrainingInputs, changes: dict[str, object]) -> None:
    num_parts: list[int] = []
    supervise = trainer.supervise

    def counted(*arguments: Any) -> Any:
        parts = supervise(*arguments)
        num_parts.append(len(parts))
        return parts

    trainer.supervise = counted
    whole, sharded = (
        train(folder, inputs, {**changes, "backbone_shards": shards}) for shards in (1, 2)
    )
    of_ranks: list[list[int]] = [[], []]
    dist.all_gather_object(of_ranks, num_parts)
    assert of_ranks[0] != of_ranks[1], "the ranks had as many sizes in every step"
    expected = whole.objective.state_dict()
    for name, value in sharded.objective.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=1e-6, msg=name)
    for ours, wanted in zip(sharded.state.history, whole.state.history, strict=True):
        losses = [name for name in wanted if "loss" in name]
        assert {n: ours[n] for n in losses} == pytest.approx({n: wanted[n] for n in losses})
    assert "val/style_closed" in sharded.state.history[-1]


def test_a_training_with_targets_of_several_sizes_is_the_same(tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path / "pairs", train_styles=5, val_styles=3, wide=(0, 3, 6))
    changes = {
        "num_workers": 2,
        "steps": 4,
        "styles_per_step": 4,
        "targets_per_style": 2,
        "aspect_buckets": [[64, 64], [96, 64]],
        "log_every": 1,
        "validation_styles": 3,
        "grid_styles": 1,
        "grid_inference_steps": 1,
        "gradient_checkpointing": True,
        "predictor": {
            "rank": 2,
            "dim": 16,
            "num_heads": 2,
            "encoder": {"path_or_id": "tiny-encoder"},
        },
    }
    run_ranks(compare_trainings, tmp_path, tmp_path, make_inputs(pairs, tmp_path), changes)
