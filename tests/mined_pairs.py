"""A small made-up mining result: styles of ten images each, every image a target once."""

from collections import Counter

import numpy as np

from jobs.mining.components import Styles
from jobs.mining.config import MiningConfig
from jobs.mining.cut import Cut, CutPoint, Edges
from jobs.mining.filters import FilterOutcome
from jobs.mining.mined import MinedPairs
from jobs.mining.pair import Pair
from jobs.mining.report_numbers import ReportSource
from jobs.mining.selection import Selection

STYLE_SIZE = 10
NUM_DROPPED = {"corrupt_image": 5, "truncated_shard": 3, "low_aesthetic": 4, "duplicate_file": 2}
SPLITS = ("train", "val", "test")


def mined_pairs(num_styles: int = 6, seed: int = 0) -> MinedPairs:
    """Image n is of style n // 10; its rows come after all dropped samples."""
    rng = np.random.default_rng(seed)
    M = num_styles * STYLE_SIZE
    content = rng.normal(size=(M, 16)).astype(np.float32)
    content /= np.linalg.norm(content, axis=1, keepdims=True)
    members = tuple(np.arange(M).reshape(num_styles, STYLE_SIZE))
    first, second = np.triu_indices(STYLE_SIZE, 1)
    first = np.concatenate([first + m[0] for m in members] + [np.arange(M - STYLE_SIZE)])
    second = np.concatenate([second + m[0] for m in members] + [np.arange(STYLE_SIZE, M)])
    inside = first // STYLE_SIZE == second // STYLE_SIZE
    csls = np.where(inside, 0.3, -0.1) + rng.uniform(-0.05, 0.05, len(first))
    edges = Edges(first, second, (0.5 + csls).astype(np.float32), csls.astype(np.float32))
    curve = tuple(
        CutPoint(t, int((csls >= t).sum()), p, p, c)
        for t, p, c in ((-0.1, 0.6, 1.0), (0.1, 0.95, 0.9), (0.3, 0.99, 0.4))
    )
    pairs = tuple(
        Pair(
            int(m[0]) // STYLE_SIZE, int(t), (int(m[(n + 1) % 10]), int(m[(n + 2) % 10])), 0.8, 0.2
        )
        for m in members
        for n, t in enumerate(m)
    )
    names = [f"{n:032x}" for n in range(num_styles)]
    return MinedPairs(
        rows=np.arange(M) + sum(NUM_DROPPED.values()),
        content=content,
        edges=edges,
        cut=Cut(0.1, 0.95, True, curve, 0.95),
        styles=Styles(members, edges.where(inside), np.repeat(np.arange(num_styles), STYLE_SIZE)),
        selection=Selection(
            pairs,
            0.4,
            {"same_head": 3, "near_copy": 0, "similar_content": 6},
            {"same_head": [(0, 1)]},
            {"total": 2, "source": 1, "split_conflict": 0},
        ),
        names=names,
        splits={name: SPLITS[n % 3] for n, name in enumerate(names)},
    )


def report_source(num_styles: int = 6) -> ReportSource:
    """Everything that the report wants, over two shards."""
    mined = mined_pairs(num_styles)
    reasons = ["", *sorted(NUM_DROPPED)]
    dropped = [reasons.index(r) for r, n in NUM_DROPPED.items() for _ in range(n)]
    reason = np.array(dropped + [0] * len(mined.rows), dtype=np.int16)
    N, num_pairs = len(reason), len(mined.selection.pairs)
    pairs = Counter(mined.splits[mined.names[pair.style]] for pair in mined.selection.pairs)
    styles = Counter(mined.splits.values())
    counts = {
        "images": N,
        "images_kept": len(mined.rows),
        "images_used": len(mined.rows),
        "styles": num_styles,
        "pairs": num_pairs,
        **{f"pairs_{split}": pairs[split] for split in SPLITS},
        **{f"styles_{split}": styles[split] for split in SPLITS},
    }
    aesthetic = np.full(N, np.nan, dtype=np.float32)
    aesthetic[8:] = np.linspace(3, 8, N - 8)
    return ReportSource(
        config=MiningConfig(),
        input_hash="0" * 64,
        counts=counts,
        drops=dict(Counter(NUM_DROPPED).most_common()),
        outcomes=[
            FilterOutcome("opt_out", "opt_out", N - 8, N - 8, True, "metadata"),
            FilterOutcome("aesthetic", "low_aesthetic", N - 8, N - 12, 4.5, "metadata"),
            FilterOutcome("watermark", "watermark", N - 12, N - 12, None, "skip"),
        ],
        shard_names=["a/0.tar", "a/1.tar"],
        shard=np.arange(N) % 2,
        reason=reason,
        reason_names=reasons,
        scores={"aesthetic": aesthetic, "watermark": np.full(N, np.nan, dtype=np.float32)},
        ignored_members={"pkl": 2},
        mined=mined,
    )
