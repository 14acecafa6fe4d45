"""Mining pictures by people, beside simpler rules, and which hands are taken for which.

Fetches Debian packages (0.6 GB, kept in the folder that I2L_REAL_PICTURES names), mines the
pictures without their labels by the recipe for pictures, and asserts a precision of 0.9.

    pytest tests/benchmarks/bench_mining_real_pictures.py -s --timeout=0
"""

import os
from pathlib import Path

from tests.assets.real_pictures import DEFAULT_CACHE, collect
from tests.real_hands import MINED, mine_and_score


def test_real_pictures(ray_cluster: None, tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    collect(pictures, Path(os.environ.get("I2L_REAL_PICTURES", DEFAULT_CACHE)))
    outcome = mine_and_score(pictures, tmp_path)
    print("\n| rule | pairs | right | references right | hands with right pairs | same content |")
    print("|---" * 6 + "|")
    for rule, s in outcome.scores.items():
        shares = (s.precision, s.ref_precision, s.style_recall, s.same_content)
        print(f"| {rule} | {s.num_pairs} | " + " | ".join(f"{x:.3f}" for x in shares) + " |")
    print("\n| hand | pairs | right |\n|---|---|---|")
    for hand, (number, right) in outcome.mined.items():
        print(f"| {hand} | {number} | {right} |")
    for (hand, other), number in outcome.mistaken.most_common():
        print(f"{number} of {hand} with a reference by {other}")
    assert outcome.scores[MINED].precision >= 0.9
