"""Stage 8: pairs. Each image of a style is the target once; references are unlike it in content.

References are chosen greedily, each the farthest in content from the target and from those already
chosen (Gonzalez 1985), so that what all of them share is the style. Styles are worked on in
batches, each a Ray task, so that a task holds the vectors of its own images only.

Shapes: M images, E links, D content vector.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray

from jobs.mining.components import Styles
from jobs.mining.config import SelectionConfig, WorkerConfig
from jobs.mining.cut import Edges
from jobs.mining.pair import Pair
from jobs.mining.quotas import within_sources, within_total

_RANDOM_PAIRS = 20_000
_EDGES = 65_536  # whose contents are compared at a time
_IMAGES_A_BATCH = 8192
_NUM_EXAMPLES = 12


@dataclass(frozen=True, slots=True)
class Selection:
    """The pairs, and why links between images of one style were left out.

    Attributes:
        pairs: Sorted by style, then target.
        content_ceiling: Content cosine that pairs stay below.
        left_out: Links by reason: "same_head", "near_copy", "similar_content".
        examples: A few (first, second) image numbers for each reason.
        capped: Pairs taken away, by cap: "total", "source", and "split_conflict" for those of
            styles that tie several splits together.
    """

    pairs: tuple[Pair, ...]
    content_ceiling: float
    left_out: dict[str, int]
    examples: dict[str, list[tuple[int, int]]]
    capped: dict[str, int]

    def only(self, styles: set[int], reason: str) -> "Selection":
        """Without the pairs of other styles, which are counted under ``reason``."""
        pairs = tuple(pair for pair in self.pairs if pair.style in styles)
        capped = self.capped | {reason: len(self.pairs) - len(pairs)}
        return replace(self, pairs=pairs, capped=capped)


def content_ceiling(content: NDArray[np.floating], quantile: float, seed: int) -> float:
    """The ``quantile`` of the content cosine of random images, content (M, D)."""
    rng = np.random.default_rng(seed)
    first, second = rng.integers(len(content), size=(2, _RANDOM_PAIRS))
    differ = first != second
    cosine = _cosines(content, first[differ], second[differ])
    return float(np.quantile(cosine, quantile)) if len(cosine) else 1.0


def select_pairs(
    styles: Styles,
    heads: NDArray[np.uint64],
    sources: NDArray[np.uint64],
    content: NDArray[np.floating],
    config: SelectionConfig,
    seed: int,
    workers: WorkerConfig,
) -> Selection:
    """Choose pairs style by style, then apply the caps over all styles.

    Args:
        styles: Styles and the links inside them.
        heads: (M,) hashes of caption heads; 0 never equals another.
        sources: (M,) hashes of sources; 0 is unknown and has no cap.
        content: (M, D) content vectors, may be a memmap.
        config: Caps and limits.
        seed: Seed of the random pairs behind the content ceiling and of the order of targets.
        workers: How many tasks run at a time.
    """
    ceiling = content_ceiling(content, config.content_quantile, seed)
    edges = styles.edges
    same_head = (heads[edges.first] == heads[edges.second]) & (heads[edges.first] != 0)
    near_copy = (edges.cosine >= config.max_style_similarity) & ~same_head
    similar = (_cosines(content, edges.first, edges.second) > ceiling) & ~same_head & ~near_copy
    linked = edges.where(~(same_head | near_copy | similar))
    tasks = _batches(styles, linked, content)
    pairs = [pair for batch in _selected(tasks, config, seed, workers) for pair in batch]
    pairs.sort(key=lambda pair: (pair.style, pair.target))
    sizes = np.array([len(members) for members in styles.members])
    in_total = within_total(pairs, sizes, config.max_pairs, seed)
    in_sources = within_sources(in_total, sources, config.max_source_share, seed)
    left_out = {"same_head": same_head, "near_copy": near_copy, "similar_content": similar}
    return Selection(
        tuple(in_sources),
        ceiling,
        {reason: int(mask.sum()) for reason, mask in left_out.items()},
        {reason: _examples(edges, mask) for reason, mask in left_out.items()},
        {"total": len(pairs) - len(in_total), "source": len(in_total) - len(in_sources)},
    )


def _examples(edges: Edges, mask: NDArray[np.bool_]) -> list[tuple[int, int]]:
    chosen = np.flatnonzero(mask)[:_NUM_EXAMPLES]
    return [(int(edges.first[e]), int(edges.second[e])) for e in chosen]


def _cosines(
    vectors: NDArray[np.floating], first: NDArray[np.integer], second: NDArray[np.integer]
) -> NDArray[np.float32]:
    """Cosines of pairs of unit rows, a part at a time; the vectors may lie in a file."""
    cosine = np.empty(len(first), np.float32)
    for start in range(0, len(first), _EDGES):
        part = slice(start, start + _EDGES)
        a, b = (vectors[ends[part]].astype(np.float32) for ends in (first, second))
        cosine[part] = np.einsum("md,md->m", a, b)
    return cosine


@dataclass(frozen=True, slots=True)
class StyleBatch:
    """Some styles with all that selection needs of them; images are numbered from 0.

    Attributes:
        numbers: Their numbers.
        members: Places in ``images`` of each style's images.
        images: Image numbers, (n,).
        content: (n, D).
        links: Per style: (first, second) as places in ``images``, and cosine.
    """

    numbers: list[int]
    members: list[NDArray[np.int64]]
    images: NDArray[np.int64]
    content: NDArray[np.floating]
    links: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]]


def _batches(styles: Styles, linked: Edges, content: NDArray[np.floating]) -> Iterator[StyleBatch]:
    """Whole styles, about ``_IMAGES_A_BATCH`` images at a time."""
    label = styles.label[linked.first]
    by_style = np.argsort(label, kind="stable")
    ends = np.cumsum(np.bincount(label, minlength=len(styles.members))).tolist()
    numbers: list[int] = []
    size = 0
    for number, members in enumerate(styles.members):
        numbers.append(number)
        size += len(members)
        if size >= _IMAGES_A_BATCH or number == len(styles.members) - 1:
            images = np.sort(np.concatenate([styles.members[n] for n in numbers]))
            links = []
            for n in numbers:
                part = linked.where(by_style[ends[n - 1] if n else 0 : ends[n]])
                places = (np.searchsorted(images, part.first), np.searchsorted(images, part.second))
                links.append((*places, part.cosine))
            yield StyleBatch(
                numbers,
                [np.searchsorted(images, styles.members[n]) for n in numbers],
                images,
                content[images],
                links,
            )
            numbers, size = [], 0


def _selected(
    batches: Iterator[StyleBatch], config: SelectionConfig, seed: int, workers: WorkerConfig
) -> Iterator[list[Pair]]:
    """Pairs of each batch, as tasks are finished; few styles are worked on here."""
    first = next(batches, None)
    second = next(batches, None)
    if first is None or second is None:
        yield from ([select_batch(first, config, seed)] if first else [])
        return
    task = ray.remote(select_batch).options(num_cpus=workers.num_cpus)
    waiting = [second, first]
    running: list[Any] = []
    while running or waiting:
        while waiting and len(running) < workers.num_search:
            running.append(task.remote(waiting.pop(), config, seed))
            following = next(batches, None) if not waiting else None
            waiting += [following] if following else []
        (done,), running = ray.wait(running)
        yield ray.get(done)


def select_batch(batch: StyleBatch, config: SelectionConfig, seed: int) -> list[Pair]:
    """The pairs of a batch, in image numbers."""
    content = batch.content.astype(np.float32)
    pairs: list[Pair] = []
    for number, members, link in zip(batch.numbers, batch.members, batch.links, strict=True):
        targets = np.random.default_rng([seed, number]).permutation(members)
        pairs += _style_pairs(number, targets, _link_table(*link), content, config)
    images = batch.images
    return [
        replace(p, target=int(images[p.target]), refs=tuple(images[list(p.refs)].tolist()))
        for p in pairs
    ]


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
