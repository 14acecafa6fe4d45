"""The training job as it is launched: what waits for data, for checkpoints, for other workers.

All runs train the shipped backbone on the same pairs in one session; each prints seconds a step and
what they consist of, then ratios. Nothing about time is asserted.
"""

from collections.abc import Mapping
from pathlib import Path
from statistics import median

import pytest

from jobs.registry.tracking import TrackingConfig
from jobs.training.config import TrainingConfig
from jobs.training.run import run_training
from jobs.training.step_metrics import PARTS
from tests.integration.training_world import history
from tests.pair_shards import write_pairs

STEPS, EVERY, STYLES = 60, 20, 12
RUNS: Mapping[str, Mapping[str, object]] = {
    "2 workers, cache": {},
    "2 workers, cache, Ray Data": {"loaders_per_worker": 1},
    "2 workers, encoded every step": {"cache": False},
    "1 worker, cache": {"num_workers": 1},
    "1 worker, cache, half the batch": {"num_workers": 1, "styles_per_step": STYLES // 2},
}


def settings(folder: Path) -> TrainingConfig:
    """The quickstart's sizes."""
    return TrainingConfig.model_validate(
        {
            "backbone": "tiny-zimage",
            "predictor": {"encoder": {"path_or_id": "tiny-encoder"}},
            "steps": STEPS,
            "styles_per_step": STYLES,
            "checkpoint_every": EVERY,
            "validate_every": 10 * STEPS,
            "log_every": 5,
            "grid_styles": 0,
            "cache_uri": str(folder / "cache"),
        }
    )


def measured(entries: list[dict[str, float]]) -> dict[str, float]:
    """Medians over the log lines after the first, which holds what is done once."""
    steps = [entry for entry in entries if "time/step_s" in entry][1:]
    names = ["time/step_s", "data/samples_per_s", *(f"time/{part}_s" for part in PARTS)]
    found = {name: median(entry[name] for entry in steps) for name in names}
    found["memory"] = max(entry["memory/peak_gib"] for entry in steps)
    stalls = [entry["time/checkpoint_s"] for entry in entries if "time/checkpoint_s" in entry]
    return found | {"stall": median(stalls)}


@pytest.mark.usefixtures("ray_cluster")
def test_the_job(tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path / "pairs", train_styles=48)
    tracking = TrackingConfig(uri=f"sqlite:///{tmp_path}/mlflow.db")
    rows = {}
    for number, (name, changes) in enumerate(RUNS.items()):
        output = tmp_path / f"run-{number}"
        config = settings(tmp_path).model_copy(update=changes)
        run_training(config, str(pairs), str(output), tracking=tracking)
        rows[name] = measured(history(output)["history"])
    print()
    for name, row in rows.items():
        parts = ", ".join(f"{part} {row[f'time/{part}_s']:.3f}" for part in PARTS)
        print(
            f"{name:32s} {row['time/step_s']:.3f} s a step, {row['data/samples_per_s']:6.1f}"
            f" samples/s, peak {row['memory']:.2f} GiB a worker ({parts})"
        )
    base = rows["2 workers, cache"]
    step = base["time/step_s"]
    print(f"data wait / step: {base['time/data_wait_s'] / step:.2%} (goal 5 %)")
    loaded = rows["2 workers, cache, Ray Data"]
    share = loaded["time/data_wait_s"] / loaded["time/step_s"]
    print(f"data wait / step, Ray Data: {share:.2%} (goal 5 %)")
    stall = base["stall"]
    print(
        f"checkpoint stall {stall:.3f} s: {stall / step:.2f} of a step, "
        f"{stall / (EVERY * step):.2%} of {EVERY} steps (goal 5 %)"
    )
    online = rows["2 workers, encoded every step"]["time/step_s"]
    print(f"encoded every step / cached: {online / step:.2f} x the time")
    one = rows["1 worker, cache"]["time/step_s"]
    half = rows["1 worker, cache, half the batch"]["time/step_s"]
    print(f"2 workers / 1 worker: {one / step:.2f} x samples/s")
    print(f"lost of 2 to what any batch costs: {2 - one / half:.2f} x")
    print(f"lost of 2 to waiting for core or peer: {one / half - one / step:.2f} x")
