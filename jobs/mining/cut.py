"""Stage 6: where similarity becomes "same style", found without labels.

Raw cosines are not comparable between styles, so pairs are scored by CSLS, 2 cos(i, j) - r(i) -
r(j) with r the mean cosine to the nearest ten (Conneau et al. 2018, arXiv 1710.04087).

The cut rests on this: "same style" is transitive. Too low a cut links styles through chance
likenesses, too high a cut breaks styles apart, and both leave two-step paths open. So the score of
a cut is the share of two-step paths of its graph that are closed, weighted by the square root of
the share of images that keep a link; of cuts that score about as well as the best, the strictest
is taken. Where even that one leaves too many paths open, the data hold no repeated styles that
this encoder can tell apart, and no pair is trusted.

Shapes: E edges, M images.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from jobs.mining.config import CutConfig
from jobs.mining.neighbours import Neighbours

_NUM_CUTS = 60
_STRICTEST_SHARE = 0.02  # of the candidate edges
_MAX_CENTRES = 4000
_CHUNK = 2048


@dataclass(frozen=True, slots=True)
class Edges:
    """Undirected pairs of images, first < second.

    Attributes:
        first: (E,) image numbers.
        second: (E,) image numbers.
        cosine: (E,) style cosines.
        csls: (E,) scores that are comparable between styles.
    """

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    cosine: NDArray[np.float32]
    csls: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.first)

    def where(self, mask: NDArray[np.bool_] | NDArray[np.int64]) -> "Edges":
        """The edges that a mask (E,) or a list of edge numbers selects."""
        return Edges(self.first[mask], self.second[mask], self.cosine[mask], self.csls[mask])


@dataclass(frozen=True, slots=True)
class CutPoint:
    """What one threshold would do."""

    threshold: float
    num_edges: int
    transitivity: float
    coverage: float

    @property
    def score(self) -> float:
        """What the cut maximises."""
        return self.transitivity * float(np.sqrt(self.coverage))


@dataclass(frozen=True, slots=True)
class Cut:
    """The chosen threshold on CSLS, and the curve it was chosen from (loosest first)."""

    threshold: float
    transitivity: float
    trusted: bool
    curve: tuple[CutPoint, ...]


def candidate_edges(
    neighbours: Neighbours, scale: NDArray[np.float32], min_similarity: float
) -> Edges:
    """Pairs in each other's neighbour lists with a cosine of at least ``min_similarity``."""
    M = len(neighbours.index)
    rows, places = np.nonzero((neighbours.index >= 0) & (neighbours.similarity >= min_similarity))
    others, cosine = neighbours.index[rows, places], neighbours.similarity[rows, places]
    codes = rows * M + others
    mutual = np.isin(codes, others * M + rows) & (rows < others)
    first, second, cosine = rows[mutual], others[mutual], cosine[mutual]
    csls = (2 * cosine - scale[first] - scale[second]).astype(np.float32)
    return Edges(first, second, cosine, csls)


def choose_cut(edges: Edges, num_images: int, config: CutConfig, seed: int) -> Cut:
    """Pick the threshold; see the module's text. Without edges the cut is not trusted."""
    if not len(edges):
        return Cut(float("inf"), 0.0, False, ())
    shares = np.geomspace(1, _STRICTEST_SHARE, _NUM_CUTS)
    thresholds = np.unique(np.quantile(edges.csls, 1 - shares))
    centres = np.random.default_rng(seed).permutation(num_images)[:_MAX_CENTRES]
    curve = tuple(_cut_point(edges, float(t), num_images, centres) for t in thresholds)
    good = max(point.score for point in curve) - config.tolerance
    best = max((p for p in curve if p.score >= good), key=lambda point: point.threshold)
    trusted = best.transitivity >= config.min_transitivity
    return Cut(best.threshold, best.transitivity, trusted, curve)


def _cut_point(
    edges: Edges, threshold: float, num_images: int, centres: NDArray[np.int64]
) -> CutPoint:
    kept = edges.where(edges.csls >= threshold)
    graph = adjacency(kept, num_images)
    linked = np.unique(np.concatenate([edges.first, edges.second]))
    degree = np.diff(graph.indptr)
    paths = float((degree[centres] * (degree[centres] - 1.0)).sum())
    rows = graph[centres]
    closed = float((rows @ graph).multiply(rows).sum())
    coverage = float((degree[linked] > 0).mean())
    return CutPoint(threshold, len(kept), closed / paths if paths else 0.0, coverage)


def adjacency(edges: Edges, num_images: int) -> sparse.csr_array:
    """Symmetric 0/1 matrix (M, M)."""
    ones = np.ones(len(edges), dtype=np.float32)
    upper = sparse.coo_array((ones, (edges.first, edges.second)), shape=(num_images,) * 2)
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
    for start in range(0, len(edges), _CHUNK):
        part = slice(start, start + _CHUNK)
        both = graph[edges.first[part]].multiply(graph[edges.second[part]])
        shared[part] = np.asarray(both.sum(axis=1)).ravel()
    overlap: NDArray[np.float32] = shared / (degree[edges.first] + degree[edges.second] - shared)
    return overlap
