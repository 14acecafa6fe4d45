"""A tiny random backbone, pairs and a database to train on."""

import json
from pathlib import Path

from jobs.registry.tracking import TrackingConfig
from jobs.training.config import TrainingConfig
from jobs.training.run import TrainingResult, run_training
from tests.pair_shards import write_pairs

STEPS = 24
DRIVER = """
import sys
from jobs.registry.tracking import TrackingConfig
from jobs.training.config import TrainingConfig
from jobs.training.run import run_training

if __name__ == "__main__":
    config, pairs, output, database = sys.argv[1:]
    run_training(
        TrainingConfig.model_validate_json(config),
        pairs,
        output,
        tracking=TrackingConfig(uri=database),
    )
"""


class World:
    """Backbone, pairs and database that the tests share."""

    def __init__(self, folder: Path) -> None:
        from i2l_model.backbones.tiny import build_tiny_zimage

        self.folder = folder
        self.backbone = folder / "backbone"
        build_tiny_zimage(0, self.backbone)
        self.num_styles = 7  # no divisor of a run's styles
        self.pairs = write_pairs(folder / "pairs", train_styles=self.num_styles)
        self.database = f"sqlite:///{folder}/mlflow.db"

    @property
    def config(self) -> TrainingConfig:
        return TrainingConfig.model_validate(
            {
                "backbone": str(self.backbone),
                "cache_uri": str(self.folder / "cache"),
                "steps": STEPS,
                "styles_per_step": 4,
                "targets_per_style": 2,
                "max_refs": 3,
                "learning_rate": 1e-2,
                "sigma_focus": [{"low": 0.7, "high": 1.0, "share": 0.25}],
                "checkpoint_every": 6,
                "validate_every": 12,
                "log_every": 2,
                "grid_styles": 2,
                "grid_inference_steps": 2,
                "predictor": {
                    "rank": 2,
                    "dim": 32,
                    "depth": 1,
                    "num_heads": 2,
                    "compress_dim": 8,
                    "encoder": {
                        "image_size": 32,
                        "patch_size": 8,
                        "hidden_size": 32,
                        "num_layers": 1,
                        "num_heads": 2,
                    },
                },
            }
        )

    def train(self, name: str, pairs: Path | None = None, **changes: object) -> TrainingResult:
        return run_training(
            self.config.model_copy(update=changes),
            str(pairs or self.pairs),
            str(self.folder / name),
            tracking=TrackingConfig(uri=self.database),
        )


class Recording:
    """Keeps the updates."""

    def __init__(self) -> None:
        self.updates: list[tuple[str, int, int | None, str]] = []

    def update(self, stage: str, done: int, total: int | None = None, note: str = "") -> None:
        self.updates.append((stage, done, total, note))


def losses(output: Path) -> dict[float, float]:
    entries = history(output)["history"]
    return {entry["step"]: entry["train/loss"] for entry in entries if "train/loss" in entry}


def history(folder: Path) -> dict:
    return json.loads((folder / "training.json").read_text())
