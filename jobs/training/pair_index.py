"""The pairs of a split: which images there are, where their bytes lie, and what may go together.

No pixels are in here: an index of a million pairs fits into every worker's memory.
"""

# P pairs, F references, U distinct images

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

NO_REF = -1

Record = dict[str, Any]
"""A pair as `jobs.training.indexing` reads it: style, prompt, head, target and refs."""


@dataclass(frozen=True, slots=True)
class ImagePlaces:
    """Distinct images: where their bytes lie, and how large they are.

    Attributes:
        shards_U: Number of the shard.
        offsets_U: First byte in it.
        sizes_U: Number of bytes.
        widths_U: In pixels.
        heights_U: In pixels.
    """

    shards_U: np.ndarray
    offsets_U: np.ndarray
    sizes_U: np.ndarray
    widths_U: np.ndarray
    heights_U: np.ndarray

    def __len__(self) -> int:
        return len(self.shards_U)


@dataclass(frozen=True, slots=True)
class PairIndex:
    """The pairs of one split.

    Attributes:
        shards: URIs of the shards.
        refs: Distinct reference images.
        targets: Distinct target images.
        prompts: Distinct prompts of the targets.
        target_prompts_U: Prompt of each target, as a number.
        styles: Style ids, sorted.
        pair_refs_PF: Reference rows of each pair, padded with ``NO_REF``.
        pair_ref_heads_PF: Content heads of them, as numbers.
        pair_ref_keys_PF: Keys of them, as numbers.
        style_pairs: Pairs of each style.
        style_targets: Distinct target rows of each style.
        target_heads_U: Content head of each target, as a number.
        target_keys_U: Key of each target, as a number.
        pair_targets_P: Target row of each pair.
    """

    shards: list[str]
    refs: ImagePlaces
    targets: ImagePlaces
    prompts: list[str]
    target_prompts_U: np.ndarray
    styles: list[str]
    pair_refs_PF: np.ndarray
    pair_ref_heads_PF: np.ndarray
    pair_ref_keys_PF: np.ndarray
    style_pairs: list[np.ndarray]
    style_targets: list[np.ndarray]
    target_heads_U: np.ndarray
    target_keys_U: np.ndarray
    pair_targets_P: np.ndarray

    @property
    def num_pairs(self) -> int:
        """Pairs of the split."""
        return len(self.pair_targets_P)

    def prompt(self, target: int) -> str:
        """Prompt of a target."""
        return self.prompts[int(self.target_prompts_U[target])]

    def allowed_targets(self, style: int, pair: int, columns: np.ndarray) -> np.ndarray:
        """Target rows of ``style`` that show another content than the chosen references.

        Args:
            style: Index of the style.
            pair: Pair whose references are used.
            columns: Which of its references.
        """
        rows = self.style_targets[style]
        shown = self.pair_ref_heads_PF[pair, columns]
        keys = self.pair_ref_keys_PF[pair, columns]
        allowed = ~np.isin(self.target_heads_U[rows], shown)
        allowed &= ~np.isin(self.target_keys_U[rows], keys)
        return rows[allowed]


class _Numbers:
    """Strings as small integers."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}

    def __getitem__(self, text: str) -> int:
        return self.numbers.setdefault(text, len(self.numbers))


@dataclass(slots=True)
class _Images:
    """Distinct images. Shards number their samples alike, so a key alone names none."""

    rows: dict[tuple[str, str], int] = field(default_factory=dict)
    places: list[tuple[int, int, int, int, int]] = field(default_factory=list)

    def add(self, image: Record) -> int:
        identity = (image["key"], image["hash"])
        if identity not in self.rows:
            self.rows[identity] = len(self.places)
            columns = ("shard", "offset", "size", "width", "height")
            self.places.append(tuple(image[name] for name in columns))
        return self.rows[identity]

    def table(self) -> ImagePlaces:
        return ImagePlaces(*np.array(self.places, dtype=np.int64).T)


def build_index(records: Iterable[Record], shards: list[str]) -> PairIndex:
    """Number what the pairs hold.

    Args:
        records: At least one pair.
        shards: URIs of the shards that they lie in.
    """
    refs, targets = _Images(), _Images()
    heads, keys, prompts = _Numbers(), _Numbers(), _Numbers()
    described: list[tuple[int, int, int]] = []  # of each target: prompt, head, key
    pairs: list[tuple[str, int, list[int], list[int], list[int]]] = []
    for record in records:
        target = targets.add(record["target"])
        if target == len(described):  # a new one
            key = keys[record["target"]["key"]]
            described.append((prompts[record["prompt"]], heads[record["head"]], key))
        images = record["refs"]
        pairs.append(
            (
                record["style"],
                target,
                [refs.add(image) for image in images],
                [heads[image["head"]] for image in images],
                [keys[image["key"]] for image in images],
            )
        )
    styles = sorted({pair[0] for pair in pairs})
    number = {style: i for i, style in enumerate(styles)}
    style_of_pair = np.array([number[pair[0]] for pair in pairs])
    pair_targets_P = np.array([pair[1] for pair in pairs])
    order = np.argsort(style_of_pair, kind="stable")
    style_pairs = np.split(order, np.cumsum(np.bincount(style_of_pair))[:-1])
    target_prompts_U, target_heads_U, target_keys_U = np.array(described).T
    return PairIndex(
        shards=shards,
        refs=refs.table(),
        targets=targets.table(),
        prompts=list(prompts.numbers),
        target_prompts_U=target_prompts_U,
        styles=styles,
        pair_refs_PF=_padded([pair[2] for pair in pairs]),
        pair_ref_heads_PF=_padded([pair[3] for pair in pairs]),
        pair_ref_keys_PF=_padded([pair[4] for pair in pairs]),
        style_pairs=style_pairs,
        style_targets=[np.unique(pair_targets_P[rows]) for rows in style_pairs],
        target_heads_U=target_heads_U,
        target_keys_U=target_keys_U,
        pair_targets_P=pair_targets_P,
    )


def _padded(rows: list[list[int]]) -> np.ndarray:
    padded = np.full((len(rows), max(len(row) for row in rows)), NO_REF, dtype=np.int64)
    for i, row in enumerate(rows):
        padded[i, : len(row)] = row
    return padded
