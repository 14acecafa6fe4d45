"""The real memory of training workers, and trainings whose memory is known from nothing else."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from diffusers import ZImageTransformer2DModel

from i2l_model.backbones.tiny import build_tiny_zimage, seeded
from jobs.registry.tracking import TrackingConfig
from jobs.training.config import TrainingConfig
from jobs.training.run import run_training
from tests.pair_shards import write_pairs

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


@dataclass(frozen=True)
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
        steps = {"steps": 4, "checkpoint_every": 2, "validate_every": 2, "log_every": 1}
        return TrainingConfig.model_validate({"num_workers": 1, **steps, **own})

    def peak_bytes(self, case: str, config: TrainingConfig) -> int:
        """Train, and return the most resident memory that a worker had."""
        with peak_of_workers() as peaks:
            run_training(
                config,
                str(self.folder / "pairs"),
                str(self.folder / f"{case}-{config.zero_stage}-{config.num_workers}"),
                tracking=TrackingConfig(uri=f"sqlite:///{self.folder}/mlflow.db"),
            )
        return max(peaks.values())


@contextmanager
def peak_of_workers() -> Iterator[dict[int, int]]:
    """The high-water mark in bytes of each Ray Train worker below this process, by its id."""
    stop, peaks = threading.Event(), dict[int, int]()
    known = {process.pid for process in _workers()}

    def sample() -> None:
        while not stop.wait(0.1):
            for process in _workers():
                if process.pid not in known:
                    peaks[process.pid] = max(peaks.get(process.pid, 0), _high_water(process.pid))

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield peaks
    finally:
        stop.set()
        thread.join()


def _workers() -> list[psutil.Process]:
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if "RayTrainWorker" in " ".join(process.cmdline()):
                found.append(process)
        except psutil.Error:  # ended meanwhile
            continue
    return found


def _high_water(pid: int) -> int:
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    except OSError:  # ended meanwhile
        pass
    return 0
