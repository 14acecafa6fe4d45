"""Mining on hidden labels: right pairs and covered styles, beside simpler rules.

Draws hard grids (a third of the styles share palettes in families, a third change them from image
to image, every twentieth image is there twice), mines them through the job with its usual settings,
and prints for each rule how many pairs are right and what is wrong with the others. Asserts what
mining is accepted by.

    BENCH_QUALITY_SEEDS=801,802,803 BENCH_QUALITY_STYLES=300 \\
        pytest tests/benchmarks/bench_mining_quality.py -s --timeout=0
"""

import os
from pathlib import Path

import pytest

from tests.hard_grid import GROUPS, MINED, Outcome, hard_grid, mine_and_score

SEEDS = [int(seed) for seed in os.environ.get("BENCH_QUALITY_SEEDS", "801,802,803").split(",")]
NUM_STYLES = int(os.environ.get("BENCH_QUALITY_STYLES", "300"))
IMAGES_PER_STYLE = int(os.environ.get("BENCH_QUALITY_IMAGES", "10"))


def _table(outcome: Outcome) -> str:
    lines = [
        "| rule | pairs | right | style recall | wrong style | same content | near-duplicate | "
        + " | ".join(f"right, {group.replace('_', ' ')}" for group in GROUPS)
        + " |",
        "|---" * (7 + len(GROUPS)) + "|",
    ]
    for rule, scores in outcome.scores.items():
        values = [
            scores.precision,
            scores.style_recall,
            1 - scores.precision,
            scores.same_content,
            scores.near_duplicate,
            *outcome.precision[rule].values(),
        ]
        row = " | ".join(f"{value:.3f}" for value in values)
        lines.append(f"| {rule} | {scores.num_pairs} | {row} |")
    return "\n".join(lines)


@pytest.mark.parametrize("seed", SEEDS)
def test_mining_quality(ray_cluster: None, tmp_path: Path, seed: int) -> None:
    outcome = mine_and_score(hard_grid(NUM_STYLES, IMAGES_PER_STYLE, seed), tmp_path)
    print(f"\nseed {seed}, {NUM_STYLES} styles x {IMAGES_PER_STYLE}\n\n{_table(outcome)}")
    mined = outcome.scores[MINED]
    assert mined.precision >= 0.95
    assert mined.style_recall >= 0.85
    assert mined.same_content <= 0.01
