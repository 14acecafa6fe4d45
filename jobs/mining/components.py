"""Stage 7: styles as connected parts of the cut graph that hold together.

Connected components chain: two styles with one false link between them become one. Two guards:
links need common neighbours (``edge_support``), and a component that is mostly unlinked inside is
cut again at a higher similarity until its parts are dense. Each cut takes a share of the links
away, so that all cuts together cost a few passes over the links.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components

from jobs.mining.config import CutConfig
from jobs.mining.cut import Cut, Edges, adjacency, edge_support

_TIGHTER = 0.15  # share of a loose component's weakest edges that one more cut takes away


@dataclass(frozen=True, slots=True)
class Styles:
    """The styles that were found.

    Attributes:
        members: Sorted image numbers of each style.
        edges: Links inside styles; pairs are made of these only.
        label: (M,) number of each image's style, -1 for none.
    """

    members: tuple[NDArray[np.int64], ...]
    edges: Edges
    label: NDArray[np.int64]


def find_styles(
    edges: Edges, cut: Cut, num_images: int, num_neighbours: int, config: CutConfig
) -> Styles:
    """Cut the graph and return its dense components of at least ``min_style_size`` images.

    Args:
        edges: Candidate links.
        cut: The threshold on their scores.
        num_images: M.
        num_neighbours: Length of the neighbour lists, which bounds the links of an image.
        config: Limits.
    """
    if not cut.trusted:
        return styles_of([], edges.where(np.zeros(len(edges), dtype=bool)), num_images)
    kept = edges.where(edges.csls >= cut.threshold)
    kept = kept.where(edge_support(kept, num_images) >= config.min_support)
    dense: list[NDArray[np.int64]] = []
    waiting = list(_components(kept))
    while waiting:
        members, inside = waiting.pop()
        if len(members) < config.min_style_size:
            continue
        possible = min(len(members) - 1, max(num_neighbours // 2, 1))
        if 2 * len(inside) >= config.min_density * possible * len(members):
            dense.append(members)
        else:
            waiting.extend(_components(_tightened(inside)))
    dense.sort(key=lambda members: int(members[0]))
    return styles_of(dense, kept, num_images)


def _tightened(edges: Edges) -> Edges:
    """Without the weakest ``_TIGHTER`` of the edges; of equally weak ones all go or all stay."""
    least = np.quantile(edges.csls, _TIGHTER)
    weakest = edges.csls.min()
    return edges.where(edges.csls >= least if least > weakest else edges.csls > weakest)


def _components(edges: Edges) -> Iterator[tuple[NDArray[np.int64], Edges]]:
    """Connected groups of at least two images, each with the edges inside."""
    images, ends = np.unique(np.concatenate([edges.first, edges.second]), return_inverse=True)
    first, second = ends.astype(np.int32).reshape(2, -1)
    local = Edges(first, second, edges.cosine, edges.csls)
    count, label = connected_components(adjacency(local, len(images)), directed=False)
    by_image = images[np.argsort(label, kind="stable")]
    image_ends = np.cumsum(np.bincount(label, minlength=count))
    edge_label = label[first]
    by_edge = edges.where(np.argsort(edge_label, kind="stable"))
    edge_ends = np.cumsum(np.bincount(edge_label, minlength=count))
    image_start, edge_start = 0, 0
    for image_end, edge_end in zip(image_ends.tolist(), edge_ends.tolist(), strict=True):
        inside = np.arange(edge_start, edge_end)
        yield by_image[image_start:image_end].astype(np.int64), by_edge.where(inside)
        image_start, edge_start = image_end, edge_end


def styles_of(members: list[NDArray[np.int64]], edges: Edges, num_images: int) -> Styles:
    """Styles of these members, with the links inside them."""
    label = np.full(num_images, -1, dtype=np.int64)
    for number, group in enumerate(members):
        label[group] = number
    inside = (label[edges.first] == label[edges.second]) & (label[edges.first] >= 0)
    return Styles(tuple(members), edges.where(inside), label)
