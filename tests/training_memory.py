"""Trainings of several sizes, each in a process of its own, and the memory that they take."""

import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from diffusers import ZImageTransformer2DModel

from i2l_model.backbones.tiny import build_tiny_zimage, seeded
from jobs.training.config import TrainingConfig
from jobs.training.inputs import TrainingInputs
from jobs.training.loading import LATENTS, PROMPTS, TOKENS
from jobs.training.memory import estimate_memory
from jobs.training.preparation import longest_prompt
from tests.pair_shards import write_pairs
from tests.training_inputs import encode_inputs, make_inputs

_MIB = 2**20
# By itself the C library keeps freed blocks for later, so that a process grows beyond its needs.
_GIVE_BACK = {"MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_ARENA_MAX": "1"}
# Nor does Python look for garbage as seldom as in the other tests.
_ENVIRONMENT = {**_GIVE_BACK, "PYTHONPATH": ""}
_MIDDLE = {"dim": 768, "n_layers": 6, "n_heads": 12, "n_kv_heads": 12, "axes_dims": [16, 24, 24]}
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
}


@dataclass(frozen=True, eq=False)
class Workplace:
    """Pairs and a middle backbone.

    Attributes:
        folder: Everything is below it.
    """

    folder: Path

    @classmethod
    def build(cls, folder: Path) -> "Workplace":
        write_pairs(folder / "pairs", train_styles=24, val_styles=4)
        pipeline = build_tiny_zimage(0).pipeline()
        with seeded(0):
            config = {**pipeline.transformer.config, **_MIDDLE}
            pipeline.transformer = ZImageTransformer2DModel.from_config(config)
        pipeline.save_pretrained(folder / "middle", safe_serialization=True)
        return cls(folder)

    def config(self, case: str, **changes: object) -> TrainingConfig:
        own = {**CASES[case], **changes}
        if own.get("backbone") == "middle":
            own["backbone"] = str(self.folder / "middle")
        # The last step is made while a checkpoint and the best weights are held.
        steps = {"steps": 3, "checkpoint_every": 2, "validate_every": 2, "log_every": 1}
        return TrainingConfig.model_validate({"num_workers": 1, **steps, **own})

    def peak_bytes(self, config: TrainingConfig) -> int:
        """Train, and return the most resident memory that rank 0 had."""
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            inputs = make_inputs(self.folder / "pairs", Path(folder))
            inputs = encode_inputs(inputs, config, Path(folder), (LATENTS, PROMPTS, TOKENS))
            ranks = [
                self._start(config, inputs, Path(folder), rank)
                for rank in range(config.num_workers)
            ]
            outputs = [process.communicate()[0] for process in ranks]
        for process, output in zip(ranks, outputs, strict=True):
            assert process.returncode == 0, output
        return int(outputs[0].split()[-1])

    def _start(
        self, config: TrainingConfig, inputs: TrainingInputs, folder: Path, rank: int
    ) -> subprocess.Popen[str]:
        arguments = (folder / "output", rank, config.num_workers)
        command = [sys.executable, "-m", "tests.training_memory_worker"]
        command += [config.model_dump_json(), inputs.model_dump_json()]
        return subprocess.Popen(
            [*command, *map(str, arguments), str(folder / "rendezvous")],
            env={**os.environ, **_ENVIRONMENT},
            stdout=subprocess.PIPE,
            text=True,
        )

    @cached_property
    def bare_bytes(self) -> tuple[int, int]:
        """The same process at a negligible size: estimated and measured bytes."""
        config = self.config("smallest")
        return self._estimated(config), self.peak_bytes(config)

    def compare(self, case: str, **changes: object) -> "Comparison":
        """Estimate and measure a training."""
        config = self.config(case, **changes)
        bare_estimate, bare = self.bare_bytes
        estimated, measured = self._estimated(config), self.peak_bytes(config)
        return Comparison(estimated, measured, estimated - bare_estimate, measured - bare)

    def _estimated(self, config: TrainingConfig) -> int:
        prompt = longest_prompt(str(self.folder / "pairs"))
        return estimate_memory(config, "cpu", prompt).total


@dataclass(frozen=True)
class Comparison:
    """Bytes of rank 0: the whole process, and its increase over a negligible training."""

    estimated: int
    measured: int
    estimated_increase: int
    measured_increase: int

    @property
    def ratio(self) -> float:
        """Estimate by measurement, of the whole process."""
        return self.estimated / self.measured

    @property
    def increase_ratio(self) -> float:
        """Estimate by measurement, of the increase."""
        return self.estimated_increase / self.measured_increase

    def __str__(self) -> str:
        return (
            f"process {self.estimated / _MIB:.0f} / {self.measured / _MIB:.0f} MiB ="
            f" {self.ratio:.2f}, increase {self.estimated_increase / _MIB:.0f} /"
            f" {self.measured_increase / _MIB:.0f} MiB = {self.increase_ratio:.2f}"
        )
