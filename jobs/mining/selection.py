"""Stage 8: pairs. Each image of a style is the target once; references are unlike it in content.

References are chosen greedily, each the farthest in content from the target and from those already
chosen (Gonzalez 1985), so that what all of them share is the style.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jobs.mining.components import Styles
from jobs.mining.config import SelectionConfig

_RANDOM_PAIRS = 20_000


@dataclass(frozen=True, slots=True)
class Pair:
    """One training example: image numbers of the target and of its references.

    Attributes:
        style: Number of the style.
        target: The image to draw.
        refs: One to ``max_refs`` images that show the style.
        style_similarity: Mean style cosine of the references to the target.
        content_similarity: Largest content cosine of a reference to the target.
    """

    style: int
    target: int
    refs: tuple[int, ...]
    style_similarity: float
    content_similarity: float


@dataclass(frozen=True, slots=True)
class Selection:
    """The pairs, and why links between images of one style were left out.

    Attributes:
        pairs: Sorted by style, then target.
        content_ceiling: Content cosine that pairs stay below.
        left_out: Links by reason: "same_head", "similar_content".
        examples: A few (first, second) image numbers for each reason.
    """

    pairs: tuple[Pair, ...]
    content_ceiling: float
    left_out: dict[str, int]
    examples: dict[str, list[tuple[int, int]]]


def content_ceiling(content: NDArray[np.float32], quantile: float, seed: int) -> float:
    """The ``quantile`` of the content cosine of random images, content (M, D)."""
    rng = np.random.default_rng(seed)
    first, second = rng.integers(len(content), size=(2, _RANDOM_PAIRS))
    differ = first != second
    cosine = np.einsum("md,md->m", content[first[differ]], content[second[differ]])
    return float(np.quantile(cosine, quantile)) if len(cosine) else 1.0


def select_pairs(
    styles: Styles,
    heads: list[str],
    content: NDArray[np.float32],
    config: SelectionConfig,
    seed: int,
) -> Selection:
    """Choose pairs style by style.

    Args:
        styles: Styles and the links inside them.
        heads: M caption heads; "" never equals another.
        content: (M, D) content vectors.
        config: Caps and limits.
        seed: Seed of the random pairs behind the content ceiling and of the order of targets.
    """
    ceiling = content_ceiling(content, config.content_quantile, seed)
    edges = styles.edges
    cosine = np.einsum("md,md->m", content[edges.first], content[edges.second])
    same_head = np.array(
        [heads[a] == heads[b] != "" for a, b in zip(edges.first, edges.second, strict=True)],
        dtype=bool,
    )
    similar = (cosine > ceiling) & ~same_head
    linked = edges.where(~same_head & ~similar)
    links = _link_table(linked.first, linked.second, linked.cosine)
    rng = np.random.default_rng(seed)
    pairs: list[Pair] = []
    for number, members in enumerate(styles.members):
        pairs += _style_pairs(number, rng.permutation(members), links, content, config)
    left_out = {"same_head": same_head, "similar_content": similar}
    return Selection(
        tuple(sorted(pairs, key=lambda pair: (pair.style, pair.target))),
        ceiling,
        {reason: int(mask.sum()) for reason, mask in left_out.items()},
        {
            reason: [(int(edges.first[e]), int(edges.second[e])) for e in np.flatnonzero(mask)[:12]]
            for reason, mask in left_out.items()
        },
    )


def _link_table(
    first: NDArray[np.integer], second: NDArray[np.integer], cosine: NDArray[np.float32]
) -> dict[int, dict[int, float]]:
    table: dict[int, dict[int, float]] = {}
    for a, b, value in zip(first.tolist(), second.tolist(), cosine.tolist(), strict=True):
        table.setdefault(a, {})[b] = value
        table.setdefault(b, {})[a] = value
    return table


def _style_pairs(
    number: int,
    targets: NDArray[np.int64],
    links: dict[int, dict[int, float]],
    content: NDArray[np.float32],
    config: SelectionConfig,
) -> list[Pair]:
    """Pairs of one style; every image keeps one of its uses for being a target itself."""
    ref_uses: dict[int, int] = {}
    pairs: list[Pair] = []
    for target in targets[: config.max_pairs_per_style].tolist():
        known = links.get(target, {})
        free = [i for i in sorted(known) if ref_uses.get(i, 0) < config.max_uses_per_image - 1]
        if not free:
            continue
        refs = farthest(target, np.array(free), content, config.max_refs)
        for ref in refs:
            ref_uses[ref] = ref_uses.get(ref, 0) + 1
        style_similarity = float(np.mean([known[ref] for ref in refs]))
        content_similarity = float((content[list(refs)] @ content[target]).max())
        pairs.append(Pair(number, target, refs, style_similarity, content_similarity))
    return pairs


def farthest(
    target: int, candidates: NDArray[np.int64], content: NDArray[np.float32], max_refs: int
) -> tuple[int, ...]:
    """Greedy farthest points from ``target`` among ``candidates``; ties go to the lower number."""
    nearest = content[candidates] @ content[target]
    chosen: list[int] = []
    for _ in range(min(max_refs, len(candidates))):
        place = int(np.argmin(nearest))
        chosen.append(int(candidates[place]))
        nearest = np.maximum(nearest, content[candidates] @ content[candidates[place]])
        nearest[place] = np.inf
    return tuple(chosen)
