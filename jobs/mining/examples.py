"""Which pairs and pictures the report shows."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jobs.mining.cut import edge_support
from jobs.mining.mined import MinedPairs

NUM_PAIRS = 10
NUM_LINKS = 12
NUM_STYLES = 12
IMAGES_A_STYLE = 8


@dataclass(frozen=True, slots=True)
class LinkGroup:
    """Links of one kind: image numbers and the CSLS score of each."""

    title: str
    explanation: str
    links: tuple[tuple[int, int], ...]
    scores: tuple[float, ...]


def link_groups(mined: MinedPairs) -> list[LinkGroup]:
    """Links just above and just below the cut, and links that other rules took away."""
    edges, cut, label = mined.edges, mined.cut, mined.styles.label
    csls = edges.csls
    above = csls >= cut.threshold
    same = (label[edges.first] == label[edges.second]) & (label[edges.first] >= 0)
    order = np.argsort(csls, kind="stable")
    kept = [e for e in order if above[e] and same[e]][:NUM_LINKS]
    missed = [e for e in order[::-1] if not above[e]][:NUM_LINKS]
    apart = [e for e in order[::-1] if above[e] and not same[e]][:NUM_LINKS]
    groups = [
        _group(mined, "Just kept", "The weakest links inside styles, above the cut.", kept),
        _group(mined, "Just dropped", "The strongest links below the cut.", missed),
        _group(
            mined,
            "Dropped for lack of common neighbours",
            "Above the cut, but the two images share too few neighbours or their group is too "
            "small or too loose.",
            apart,
        ),
    ]
    titles = {
        "same_head": ("Same content", "One style, but the captions are about the same thing."),
        "similar_content": ("Similar content", "One style, but too alike in content."),
    }
    for reason, (title, explanation) in titles.items():
        links = tuple(mined.selection.examples[reason])
        groups.append(LinkGroup(title, explanation, links, ()))
    return groups


def _group(mined: MinedPairs, title: str, explanation: str, chosen: list[np.int64]) -> LinkGroup:
    edges = mined.edges
    links = tuple((int(edges.first[e]), int(edges.second[e])) for e in chosen)
    return LinkGroup(title, explanation, links, tuple(float(edges.csls[e]) for e in chosen))


def shown_pairs(mined: MinedPairs, seed: int) -> list[int]:
    """Numbers of some pairs, drawn evenly."""
    count = len(mined.selection.pairs)
    drawn = np.random.default_rng(seed).permutation(count)[:NUM_PAIRS]
    return sorted(int(i) for i in drawn)


def shown_styles(mined: MinedPairs, seed: int) -> list[tuple[int, NDArray[np.int64]]]:
    """Some styles with some of their images."""
    members = mined.styles.members
    drawn = np.random.default_rng(seed + 1).permutation(len(members))[:NUM_STYLES]
    return [(int(number), members[number][:IMAGES_A_STYLE]) for number in sorted(drawn)]


def example_images(mined: MinedPairs, seed: int) -> set[int]:
    """Numbers of all images that the report shows."""
    images = {i for group in link_groups(mined) for link in group.links for i in link}
    for number in shown_pairs(mined, seed):
        pair = mined.selection.pairs[number]
        images.update((pair.target, *pair.refs))
    for _, members in shown_styles(mined, seed):
        images.update(int(i) for i in members)
    return images


def support_of(mined: MinedPairs) -> NDArray[np.float32]:
    """Overlap of neighbourhoods for the links above the cut."""
    kept = mined.edges.where(mined.edges.csls >= mined.cut.threshold)
    return edge_support(kept, len(mined.rows))
