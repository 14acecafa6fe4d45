"""Pictures made by people, mined blind through the job, and scored by the hand that made them."""

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from i2l_model.images import decode_image
from jobs.corpus.pack import run_pack
from jobs.corpus.picture_sample import PackConfig
from jobs.mining.run import run_mining
from jobs.mining.scoring import Label, PairScores, baseline_pairs, read_index, score_pairs
from jobs.progress import NullProgress
from pipelines.recipe import load_recipe

MINED = "i2l mine"


@dataclass(frozen=True, slots=True)
class RealOutcome:
    """What each rule did; the last one is the miner.

    Attributes:
        scores: Rule → scores, a style being a hand.
        mined: Hand → number of mined pairs with a target by it, and how many of them are right.
        mistaken: (hand of the target, hand of a wrong reference) → number of pairs.
    """

    scores: dict[str, PairScores]
    mined: dict[str, tuple[int, int]]
    mistaken: Counter[tuple[str, str]]


def mine_and_score(pictures: Path, folder: Path) -> RealOutcome:
    """Pack the pictures that ``real_pictures.collect`` wrote, and mine them as the recipe says.

    Only the scores read ``labels.json``.
    """
    known = json.loads((pictures / "labels.json").read_text())
    labels = {key: Label(truth["hand"], truth["content"]) for key, truth in known.items()}
    packed = str(folder / "packed")
    run_pack(PackConfig(), pictures, packed, NullProgress())
    mining = load_recipe("pictures").mining
    assert mining is not None
    result = run_mining(mining, packed, str(folder / "mined"), NullProgress())
    keys = sorted(labels)
    images = [np.asarray(decode_image((pictures / f"{key}.png").read_bytes())) for key in keys]
    rows = read_index(result.index_uri)
    rules = baseline_pairs(images, keys) | {MINED: rows}
    number, right = Counter[str](), Counter[str]()
    mistaken = Counter[tuple[str, str]]()
    for row in rows:
        hand = labels[row["target_key"]].style
        others = sorted({labels[key].style for key in row["ref_keys"]} - {hand})
        number[hand] += 1
        right[hand] += not others
        mistaken.update((hand, other) for other in others)
    return RealOutcome(
        {rule: score_pairs(pairs, labels) for rule, pairs in rules.items()},
        {hand: (number[hand], right[hand]) for hand in sorted({x.style for x in labels.values()})},
        mistaken,
    )
