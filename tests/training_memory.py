"""Trainings of several sizes, each in a process of its own, and the memory that they take.

On a CPU it is the process's resident memory, on a GPU what it has there.
"""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from diffusers import ZImageTransformer2DModel

from i2l_model.backbones.tiny import build_tiny_zimage, seeded
from jobs.training.config import TrainingConfig
from jobs.training.inputs import TrainingInputs
from jobs.training.loading import LATENTS, PROMPTS, TOKENS
from jobs.training.memory import MemoryEstimate, estimate_memory
from jobs.training.preparation import check_pairs
from tests.pair_shards import write_pairs
from tests.training_inputs import encode_inputs, make_inputs

_MIB = 2**20
# By itself the C library keeps freed blocks for later, so that a process grows beyond its needs.
_GIVE_BACK = {"MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_ARENA_MAX": "1"}
_BUILT = {  # sizes that differ from the shipped tiny Z-Image's
    "middle": {
        "dim": 768,
        "n_layers": 6,
        "n_heads": 12,
        "n_kv_heads": 12,
        "axes_dims": [16, 24, 24],
    },
    "large": {
        "dim": 2048,
        "n_layers": 24,
        "n_refiner_layers": 2,
        "n_heads": 16,
        "n_kv_heads": 16,
        "axes_dims": [32, 48, 48],
    },
}
_IMAGE_SIZES = {"large": 512}  # 4,096 image tokens
_PREDICTOR = {"encoder": {"path_or_id": "tiny-encoder"}}
_SMALLEST = {
    "styles_per_step": 1,
    "targets_per_style": 1,
    "max_refs": 1,
    "encode_batch_size": 1,
    "validation_styles": 1,
    "grid_styles": 1,
    "predictor": {
        "rank": 1,
        "dim": 8,
        "depth": 1,
        "num_heads": 1,
        "compress_dim": 1,
        "target_modules": ["layers.0.attention.to_q"],
        "encoder": {"image_size": 16, "patch_size": 8, "hidden_size": 8, "num_layers": 1,
                    "num_heads": 1},
    },
}  # fmt: skip
CASES: dict[str, dict[str, object]] = {
    "smallest": _SMALLEST,
    "tiny": {"backbone": "tiny-zimage", "styles_per_step": 12, "predictor": _PREDICTOR},
    "middle": {
        "backbone": "middle",
        "styles_per_step": 8,
        "predictor": {**_PREDICTOR, "rank": 8, "dim": 256, "compress_dim": 64},
    },
    "large": {
        "backbone": "large",
        "precision": "bf16",
        "gradient_checkpointing": True,
        "threads_per_worker": 4,
        "styles_per_step": 4,
        "targets_per_style": 1,
        "validation_styles": 2,
        "validation_targets": 1,
        "grid_styles": 1,
        "predictor": {
            "rank": 16,
            "dim": 1024,
            "depth": 8,
            "num_heads": 16,
            "compress_dim": 64,
            "queries_per_factor": 16,
            "encoder": {"image_size": 256, "patch_size": 16, "hidden_size": 768, "num_layers": 2,
                        "num_heads": 12},
        },
    },
}  # fmt: skip


def _environment() -> dict[str, str]:
    """As usual: without the tests' settings of the interpreter, which looks for garbage seldom."""
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    usual = os.pathsep.join(path for path in paths if Path(path).name != "interpreter")
    return {**os.environ, **_GIVE_BACK, "PYTHONPATH": usual}


@dataclass(frozen=True, eq=False)
class Workplace:
    """Pairs, and backbones that are built when they are needed.

    Attributes:
        folder: Everything is below it.
        device: "cpu" or "cuda", on which the trainings run.
    """

    folder: Path
    device: str

    @classmethod
    def build(cls, folder: Path, device: str = "cpu") -> "Workplace":
        write_pairs(folder / "pairs", train_styles=24, val_styles=4)
        return cls(folder, device)

    def config(self, case: str, **changes: object) -> TrainingConfig:
        own = {**CASES[case], **changes}
        if own.get("backbone") in _BUILT:
            own["backbone"] = str(self._backbone(str(own["backbone"])))
        # The last step is made while a checkpoint and the best weights are held.
        steps = {"steps": 3, "checkpoint_every": 2, "validate_every": 2, "log_every": 1}
        return TrainingConfig.model_validate({"num_workers": 1, **steps, **own})

    def _backbone(self, name: str) -> Path:
        folder = self.folder / name
        if folder.is_dir():
            return folder
        pipeline = build_tiny_zimage(0).pipeline()
        config = {**pipeline.transformer.config, **_BUILT[name]}
        with seeded(0), torch.device(self.device):  # a large one in a second on a GPU
            pipeline.transformer = ZImageTransformer2DModel.from_config(config)
        if name in _IMAGE_SIZES:
            pipeline.vae.register_to_config(sample_size=_IMAGE_SIZES[name])
        pipeline.save_pretrained(folder, safe_serialization=True)
        return folder

    def peak(self, config: TrainingConfig) -> dict[str, int]:
        """Train, and return the most bytes that rank 0 had, see `training_memory_worker`."""
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            inputs = make_inputs(self.folder / "pairs", Path(folder))
            kinds = (LATENTS, PROMPTS, TOKENS)
            inputs = encode_inputs(inputs, config, Path(folder), kinds, self.device)
            ranks = [
                self._start(config, inputs, Path(folder), rank)
                for rank in range(config.num_workers)
            ]
            outputs = [process.communicate()[0] for process in ranks]
        for process, output in zip(ranks, outputs, strict=True):
            assert process.returncode == 0, output
        found: dict[str, int] = json.loads(outputs[0].splitlines()[-1])
        return found

    def _start(
        self, config: TrainingConfig, inputs: TrainingInputs, folder: Path, rank: int
    ) -> subprocess.Popen[str]:
        arguments = (folder / "output", rank, config.num_workers)
        command = [sys.executable, "-m", "tests.training_memory_worker", self.device]
        command += [config.model_dump_json(), inputs.model_dump_json()]
        return subprocess.Popen(
            [*command, *map(str, arguments), str(folder / "rendezvous")],
            env=_environment(),
            stdout=subprocess.PIPE,
            text=True,
        )

    @cached_property
    def bare_bytes(self) -> tuple[int, int]:
        """The same process at a negligible size: estimated and measured bytes."""
        config = self.config("smallest")
        return self._estimate(config).total, self.peak(config)["process"]

    def compare(self, case: str, **changes: object) -> "Comparison":
        """Estimate and measure a training."""
        config = self.config(case, **changes)
        estimate, peak = self._estimate(config), self.peak(config)
        if self.device == "cuda":  # where the process itself is told apart from its tensors
            bare_estimate, bare = estimate.kept["the process itself"], peak["process"]
            bare -= peak["tensors"]
        else:
            bare_estimate, bare = self.bare_bytes
        return Comparison(estimate, bare_estimate, peak, bare)

    def _estimate(self, config: TrainingConfig) -> MemoryEstimate:
        prompt = check_pairs(config, str(self.folder / "pairs"))
        return estimate_memory(config, self.device, prompt)


@dataclass(frozen=True)
class Comparison:
    """Rank 0: the whole process, and its increase over a negligible training.

    On a GPU the increase is its tensors, and the rest of the process is CUDA's context, what
    libraries take, and blocks that the allocator keeps for later.

    Attributes:
        estimate: The estimate.
        bare_estimate: Estimated bytes of a negligible training.
        peak: Measured bytes, by what they are of.
        bare: Measured bytes of a negligible training.
    """

    estimate: MemoryEstimate
    bare_estimate: int
    peak: dict[str, int]
    bare: int

    @property
    def ratio(self) -> float:
        """Estimate by measurement, of the whole process."""
        return self.estimate.total / self.peak["process"]

    @property
    def increase_ratio(self) -> float:
        """Estimate by measurement, of the increase."""
        return (self.estimate.total - self.bare_estimate) / (self.peak["process"] - self.bare)

    def __str__(self) -> str:
        estimated, measured = self.estimate.total, self.peak["process"]
        reserved = self.peak.get("reserved")
        return (
            f"process {estimated / _MIB:.0f} / {measured / _MIB:.0f} MiB = {self.ratio:.2f},"
            f" increase {(estimated - self.bare_estimate) / _MIB:.0f} /"
            f" {(measured - self.bare) / _MIB:.0f} MiB = {self.increase_ratio:.2f}"
            + (f", allocator {reserved / _MIB:.0f} MiB" if reserved else "")
            + f"; most in the {self.estimate.greatest_phase}"
        )
