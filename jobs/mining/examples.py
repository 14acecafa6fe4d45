"""Which pairs, links, styles and dropped images the report shows; their number does not grow.

Image numbers are those of ``MinedPairs``, rows those of the samples.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jobs.mining.cut import Edges
from jobs.mining.drop_reasons import UNDECODABLE
from jobs.mining.mined import MinedPairs

NUM_PAIRS = 10
NUM_LINKS = 12
NUM_STYLES = 10
IMAGES_A_STYLE = 6
NUM_REASONS = 12
IMAGES_A_REASON = 6
KEYS_A_REASON = 5
_LINKS_LOOKED_AT = 50 * NUM_LINKS


@dataclass(frozen=True, slots=True)
class LinkGroup:
    """Links of one kind: image numbers, the CSLS score of each, and how many there are."""

    title: str
    explanation: str
    links: tuple[tuple[int, int], ...]
    scores: tuple[float, ...]
    count: int


@dataclass(frozen=True, slots=True)
class Examples:
    """What is shown.

    Attributes:
        pairs: Numbers of pairs.
        links: Borderline and dropped links.
        styles: Style numbers, each with image numbers.
        drops: Rows of dropped samples by reason.
    """

    pairs: tuple[int, ...]
    links: tuple[LinkGroup, ...]
    styles: tuple[tuple[int, tuple[int, ...]], ...]
    drops: dict[str, tuple[int, ...]]

    def picture_rows(self, mined: MinedPairs) -> list[int]:
        """Sorted rows of the samples whose pictures are shown."""
        images = {image for group in self.links for link in group.links for image in link}
        for number in self.pairs:
            pair = mined.selection.pairs[number]
            images.update((pair.target, *pair.refs))
        images.update(image for _, members in self.styles for image in members)
        rows = {int(mined.rows[image]) for image in images}
        for reason, dropped in self.drops.items():
            if reason not in UNDECODABLE:
                rows.update(dropped)
        return sorted(rows)

    def key_rows(self) -> list[int]:
        """Sorted rows of the dropped samples that have no picture, but a key."""
        return sorted(
            row for reason, rows in self.drops.items() if reason in UNDECODABLE for row in rows
        )


def choose_examples(
    mined: MinedPairs,
    reason: NDArray[np.integer],
    reason_names: Sequence[str],
    drops: Iterable[str],
    seed: int,
) -> Examples:
    """Choose by seed, or by score where the borderline is meant.

    Args:
        mined: Styles and pairs.
        reason: (N,) reason of each sample as a place in ``reason_names``.
        reason_names: Reasons; "" for kept samples.
        drops: Reasons that occur, most frequent first.
        seed: Of the drawing.
    """
    rng = np.random.default_rng(seed)
    pairs = rng.permutation(len(mined.selection.pairs))[:NUM_PAIRS]
    members = mined.styles.members
    styles = np.sort(rng.permutation(len(members))[:NUM_STYLES])
    shown = {}
    for name in list(drops)[:NUM_REASONS]:
        rows = np.flatnonzero(reason == list(reason_names).index(name))
        limit = KEYS_A_REASON if name in UNDECODABLE else IMAGES_A_REASON
        drawn = rng.choice(rows, min(limit, len(rows)), replace=False)
        shown[name] = tuple(sorted(drawn.tolist()))
    return Examples(
        pairs=tuple(sorted(pairs.tolist())),
        links=tuple(link_groups(mined)),
        styles=tuple((int(n), tuple(members[n][:IMAGES_A_STYLE].tolist())) for n in styles),
        drops=shown,
    )


def link_groups(mined: MinedPairs) -> list[LinkGroup]:
    """Links just above and just below the cut, and links that other rules took away."""
    edges, label = mined.edges, mined.styles.label
    above = edges.csls >= mined.cut.threshold
    apart = above & ((label[edges.first] != label[edges.second]) | (label[edges.first] < 0))
    inside = mined.styles.edges
    groups = [
        LinkGroup(
            "Just kept",
            "The weakest links inside styles.",
            *_border(inside, np.arange(len(inside)), strongest=False),
            count=len(inside),
        ),
        LinkGroup(
            "Just dropped",
            "The strongest links below the cut.",
            *_border(edges, np.flatnonzero(~above), strongest=True),
            count=int((~above).sum()),
        ),
        LinkGroup(
            "Dropped for lack of common neighbours",
            "Above the cut, but the two images share too few neighbours, or their group is too "
            "small or too loose.",
            *_border(edges, np.flatnonzero(apart), strongest=True),
            count=int(above.sum()) - len(inside),
        ),
    ]
    titles = {
        "same_head": ("Same content", "One style, but the captions are about the same thing."),
        "near_copy": ("Near copies", "One style, but so alike in style that one is a copy."),
        "similar_content": ("Similar content", "One style, but too alike in content."),
    }
    for reason, (title, explanation) in titles.items():
        links = tuple(mined.selection.examples.get(reason, ())[:NUM_LINKS])
        count = mined.selection.left_out.get(reason, 0)
        groups.append(LinkGroup(title, explanation, links, (), count))
    return groups


def _border(
    edges: Edges, places: NDArray[np.int64], *, strongest: bool
) -> tuple[tuple[tuple[int, int], ...], tuple[float, ...]]:
    """Links at the border of a set and their scores, no image twice if there are enough."""
    scores = edges.csls[places]
    order = np.argsort(-scores if strongest else scores, kind="stable")[:_LINKS_LOOKED_AT]
    seen: set[int] = set()
    fresh: list[int] = []
    repeated: list[int] = []
    for place in places[order].tolist():
        ends = {int(edges.first[place]), int(edges.second[place])}
        (repeated if ends & seen else fresh).append(place)
        seen |= ends
    chosen = (fresh + repeated)[:NUM_LINKS]
    links = tuple((int(edges.first[e]), int(edges.second[e])) for e in chosen)
    return links, tuple(float(edges.csls[e]) for e in chosen)
