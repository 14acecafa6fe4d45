"""Stage 6: where similarity becomes "same style", found without labels.

Raw cosines are not comparable between styles, so pairs are scored by CSLS, 2 cos(i, j) - r(i) -
r(j) with r the mean cosine to the nearest ten (Conneau et al. 2018, arXiv 1710.04087).

The cut rests on this: "same style" is transitive. Too low a cut links styles through chance
likenesses, too high a cut breaks styles apart, and both leave two-step paths open. So the score of
a cut is the share of two-step paths of its graph that are closed, beyond what chance closes,
weighted by the square root of the share of images that keep a link; of cuts that score about as
well as the best, the strictest is taken. The share is taken for each image and then averaged: a
few styles of many pictures, with their many paths, say nothing of all the others.

How closed the paths are also tells how many pairs will be right: ``_PRECISION`` was read off
labelled grids other than those that are reported. It is entered with a lower bound, since a few
images close their paths by chance. Where even the best cut is estimated to be wrong too often, the
data hold too few repeated styles that this encoder can tell apart, and no pair is trusted.

Shapes: E edges, M images, T thresholds.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from jobs.mining.config import CutConfig
from jobs.mining.neighbours import Neighbours

_NUM_CUTS = 80
_STRICTEST_SHARE = 0.003  # of the candidate edges
_MAX_CENTRES = 3000
_ROWS = 1024  # of neighbour lists that are compared at a time
_CERTAINTY = 1.645  # standard deviations: 95 % of the time a share is above its bound
_EDGES = 1 << 16  # whose neighbourhoods are compared at a time
# Closed share of an image's two-step paths → share of pairs that are right, on drawn grids of seeds
# 1 and 101 with 1 to 12 images a style, or with up to 94 % of the styles having one image only.
_PRECISION = (
    (0.57, 0.64, 0.69, 0.77, 0.82, 0.90),
    (0.0, 0.60, 0.72, 0.92, 0.95, 0.99),
)


@dataclass(frozen=True, slots=True)
class Edges:
    """Undirected pairs of images, first < second.

    Attributes:
        first: (E,) image numbers.
        second: (E,) image numbers.
        cosine: (E,) style cosines.
        csls: (E,) scores that are comparable between styles.
    """

    first: NDArray[np.int32]
    second: NDArray[np.int32]
    cosine: NDArray[np.float32]
    csls: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.first)

    def where(self, mask: NDArray[np.bool_] | NDArray[np.int64]) -> "Edges":
        """The edges that a mask (E,) or a list of edge numbers selects."""
        return Edges(self.first[mask], self.second[mask], self.cosine[mask], self.csls[mask])


@dataclass(frozen=True, slots=True)
class CutPoint:
    """What one threshold would do.

    Attributes:
        threshold: On CSLS.
        num_edges: Links above it.
        transitivity: Mean share of an image's two-step paths that are closed, 0 for what chance
            closes.
        precision: Estimated share of right pairs; no stricter cut has a lower one.
        coverage: Share of the linked images that keep a link.
    """

    threshold: float
    num_edges: int
    transitivity: float
    precision: float
    coverage: float

    @property
    def score(self) -> float:
        """What the cut maximises."""
        return self.transitivity * float(np.sqrt(self.coverage))


@dataclass(frozen=True, slots=True)
class Cut:
    """The chosen threshold on CSLS, and the curve it was chosen from (loosest first).

    Attributes:
        threshold: Links at or above it are kept.
        transitivity: Of the graph that is kept.
        trusted: Whether the estimated precision suffices.
        curve: What other thresholds would do.
        precision: Estimated share of pairs that will be right.
    """

    threshold: float
    transitivity: float
    trusted: bool
    curve: tuple[CutPoint, ...]
    precision: float = 0.0


def candidate_edges(
    neighbours: Neighbours, scale: NDArray[np.float32], min_similarity: float
) -> Edges:
    """Pairs in each other's neighbour lists with a cosine of at least ``min_similarity``."""
    M = len(neighbours.index)
    parts = [_mutual(neighbours, scale, min_similarity, start) for start in range(0, M, _ROWS)] or [
        _no_edges()
    ]
    return Edges(
        np.concatenate([part.first for part in parts]),
        np.concatenate([part.second for part in parts]),
        np.concatenate([part.cosine for part in parts]),
        np.concatenate([part.csls for part in parts]),
    )


def _mutual(
    neighbours: Neighbours, scale: NDArray[np.float32], min_similarity: float, start: int
) -> Edges:
    """Candidates whose lower image lies in one chunk of rows."""
    index = np.asarray(neighbours.index[start : start + _ROWS])
    similarity = np.asarray(neighbours.similarity[start : start + _ROWS])
    numbers = np.arange(start, start + len(index))[:, None]
    rows, places = np.nonzero((index > numbers) & (similarity >= min_similarity))
    first, second, cosine = rows + start, index[rows, places], similarity[rows, places]
    back = np.empty(len(first), dtype=bool)
    for part in _chunks(len(first)):
        back[part] = (neighbours.index[second[part]] == first[part, None]).any(axis=1)
    first, second, cosine = first[back], second[back], cosine[back]
    csls = 2 * cosine - scale[first] - scale[second]
    return Edges(
        first.astype(np.int32),
        second.astype(np.int32),
        cosine.astype(np.float32),
        csls.astype(np.float32),
    )


def _no_edges() -> Edges:
    numbers, scores = np.zeros(0, np.int32), np.zeros(0, np.float32)
    return Edges(numbers, numbers, scores, scores)


def _chunks(count: int) -> Iterator[slice]:
    return (slice(start, start + _EDGES) for start in range(0, count, _EDGES))


def choose_cut(edges: Edges, num_images: int, config: CutConfig, seed: int) -> Cut:
    """Pick the threshold; see the module's text. Without edges the cut is not trusted."""
    if not len(edges):
        return Cut(float("inf"), 0.0, False, ())
    shares = np.geomspace(1, _STRICTEST_SHARE, _NUM_CUTS)
    thresholds = np.unique(np.quantile(edges.csls, 1 - shares).astype(np.float32))
    curve = _curve(edges, thresholds, num_images, seed)
    good = max(point.score for point in curve) - config.tolerance
    best = max((p for p in curve if p.score >= good), key=lambda point: point.threshold)
    trusted = best.precision >= config.min_precision
    return Cut(best.threshold, best.transitivity, trusted, curve, best.precision)


def _curve(
    edges: Edges, thresholds: NDArray[np.float32], num_images: int, seed: int
) -> tuple[CutPoint, ...]:
    """What each of the ascending thresholds (T,) would do."""
    share, centres = _closed_paths(edges, thresholds, num_images, seed)
    best = np.full(num_images, -np.inf, dtype=np.float32)
    np.maximum.at(best, edges.first, edges.csls)
    np.maximum.at(best, edges.second, edges.csls)
    num_linked = _at_least(best[np.isfinite(best)], thresholds)
    num_edges = _at_least(edges.csls, thresholds)
    chance = num_edges / max(num_images * (num_images - 1) / 2, 1)
    transitivity = np.clip((share - chance) / np.maximum(1 - chance, 1e-9), 0, 1)
    certain = _lower_bound(transitivity, centres)
    precision = np.maximum.accumulate(np.interp(certain, *_PRECISION))
    coverage = num_linked / max(num_linked[0], 1)
    columns = (thresholds, num_edges, transitivity, precision, coverage)
    return tuple(
        CutPoint(float(t), int(n), float(c), float(p), float(v))
        for t, n, c, p, v in zip(*columns, strict=True)
    )


def _lower_bound(share: NDArray[np.float64], count: NDArray[np.int64]) -> NDArray[np.float64]:
    """Wilson's lower bound of shares (T,) that ``count`` images (T,) show."""
    n = np.maximum(count, 1)
    spread = _CERTAINTY * np.sqrt(share * (1 - share) / n + (_CERTAINTY / (2 * n)) ** 2)
    bound: NDArray[np.float64] = (share + _CERTAINTY**2 / (2 * n) - spread) / (
        1 + _CERTAINTY**2 / n
    )
    return bound


def _closed_paths(
    edges: Edges, thresholds: NDArray[np.float32], num_images: int, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Share of closed two-step paths over an image, mean of sampled images that have any: 2 x (T,).

    Returns that mean, and of how many images it is. A path exists up to the weaker of its two
    links, and is closed up to the weakest of three.
    """
    centres = np.random.default_rng(seed).permutation(num_images)[:_MAX_CENTRES]
    graph, lowest = _graph_around(edges, centres, num_images)
    total = np.zeros(len(thresholds))
    count = np.zeros(len(thresholds), dtype=np.int64)
    for centre in centres:
        part = slice(graph.indptr[centre], graph.indptr[centre + 1])
        ends, scores = graph.indices[part], graph.data[part]
        if len(ends) < 2:
            continue
        upper = np.triu_indices(len(ends), 1)
        path = np.minimum(scores[upper[0]], scores[upper[1]])
        third = graph[ends][:, ends].toarray()[upper]
        paths = _at_least(path + lowest, thresholds)
        closed = _at_least(np.minimum(path, third)[third > 0] + lowest, thresholds)
        total += closed / np.maximum(paths, 1)
        count += paths > 0
    return total / np.maximum(count, 1), count


def _graph_around(
    edges: Edges, centres: NDArray[np.int64], num_images: int
) -> tuple[sparse.csr_array, float]:
    """Scores of all links among centres and their neighbours, made positive; the least one."""
    near = np.zeros(num_images, dtype=bool)
    near[centres] = True
    touching = near[edges.first] | near[edges.second]
    near[edges.first[touching]] = True
    near[edges.second[touching]] = True
    local = edges.where(near[edges.first] & near[edges.second])
    lowest = float(edges.csls.min()) - 1
    graph = sparse.coo_array(
        (local.csls - np.float32(lowest), (local.first, local.second)), shape=(num_images,) * 2
    ).tocsr()
    return (graph + graph.T).tocsr(), lowest


def _at_least(values: NDArray[np.float32], thresholds: NDArray[np.float32]) -> NDArray[np.int64]:
    """How many values reach each of the ascending thresholds."""
    reached = np.searchsorted(thresholds, values + np.float32(1e-6), side="right")
    counts = np.bincount(reached, minlength=len(thresholds) + 1)
    at_least: NDArray[np.int64] = counts[::-1].cumsum()[::-1][1:]
    return at_least


def adjacency(edges: Edges, num_images: int) -> sparse.csr_array:
    """Symmetric 0/1 matrix (M, M)."""
    ones = np.ones(len(edges), dtype=np.float32)
    upper = sparse.coo_array((ones, (edges.first, edges.second)), shape=(num_images,) * 2).tocsr()
    return (upper + upper.T).tocsr()


def edge_support(edges: Edges, num_images: int) -> NDArray[np.float32]:
    """(E,) Jaccard overlap of the two closed neighbourhoods of each edge.

    Inside one style two images share their neighbours; an edge that bridges two styles has few
    in common. A pair that knows only each other has support 1.
    """
    graph = adjacency(edges, num_images) + sparse.eye_array(num_images, dtype=np.float32)
    graph = graph.tocsr()
    degree = np.diff(graph.indptr)
    shared = np.empty(len(edges), dtype=np.float32)
    for part in _chunks(len(edges)):
        both = graph[edges.first[part]].multiply(graph[edges.second[part]])
        shared[part] = np.asarray(both.sum(axis=1)).ravel()
    total = degree[edges.first] + degree[edges.second] - shared
    overlap: NDArray[np.float32] = (shared / total).astype(np.float32)
    return overlap
