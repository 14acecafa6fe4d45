"""Pairs in memory, and which of them a step trains on."""

# P pairs, N styles of a batch, K targets a style, F references, U distinct images, S pixels

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from PIL import Image

from i2l_model.errors import InputError
from i2l_model.images import decode_image, fit_square
from jobs import shards, storage
from jobs.provenance import bytes_hash

logger = logging.getLogger(__name__)

NO_REF = -1


@dataclass(slots=True)
class ImageTable:
    """Distinct images, resized to one square size.

    Shards number their samples alike, so a key alone names no image: its bytes belong to it.
    """

    size: int
    rows: dict[tuple[str, str], int] = field(default_factory=dict)
    _pixels: list[np.ndarray] = field(default_factory=list)

    def add(self, key: str, data: bytes) -> int:
        """Row of the image; a new one is decoded."""
        identity = (key, bytes_hash(data))
        if identity not in self.rows:
            image: Image.Image = fit_square(decode_image(data, field=key), self.size)
            self.rows[identity] = len(self._pixels)
            self._pixels.append(np.asarray(image, dtype=np.uint8).transpose(2, 0, 1))
        return self.rows[identity]

    def stack(self) -> torch.Tensor:
        """All images (U, 3, S, S) uint8; afterwards the table holds no copies."""
        stacked = torch.from_numpy(np.stack(self._pixels))
        self._pixels.clear()
        return stacked


@dataclass(frozen=True, slots=True)
class PairStore:
    """The pairs of one split.

    Attributes:
        refs_U3SS: Distinct reference images, uint8, at the encoder's size.
        targets_U3SS: Distinct target images, uint8, at the backbone's size.
        prompts: Prompt of each target image.
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

    refs_U3SS: torch.Tensor
    targets_U3SS: torch.Tensor
    prompts: list[str]
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
        self._numbers: dict[str, int] = {}

    def __getitem__(self, text: str) -> int:
        return self._numbers.setdefault(text, len(self._numbers))


@dataclass(slots=True)
class _Builder:
    """Collects pairs sample by sample."""

    refs: ImageTable
    targets: ImageTable
    heads: _Numbers = field(default_factory=_Numbers)
    keys: _Numbers = field(default_factory=_Numbers)
    prompts: list[str] = field(default_factory=list)
    target_heads: list[int] = field(default_factory=list)
    target_keys: list[int] = field(default_factory=list)
    pairs: list[tuple[str, int, list[int], list[int], list[int]]] = field(default_factory=list)

    def add(self, sample: shards.ShardSample) -> None:
        record = json.loads(sample.members["json"])
        ref_keys = record["ref_keys"]
        rows = [
            self.refs.add(key, sample.members[f"ref_{i}.jpg"]) for i, key in enumerate(ref_keys)
        ]
        key = record["target_key"]
        target = self.targets.add(key, sample.members["target.jpg"])
        if target == len(self.prompts):  # a new one
            self.prompts.append(record["target_prompt"])
            self.target_heads.append(self.heads[record["target_head"]])
            self.target_keys.append(self.keys[key])
        heads = [self.heads[head] for head in record["ref_heads"]]
        numbers = [self.keys[ref_key] for ref_key in ref_keys]
        self.pairs.append((str(record["style_id"]), target, rows, heads, numbers))

    def build(self) -> PairStore:
        styles = sorted({pair[0] for pair in self.pairs})
        number = {style: i for i, style in enumerate(styles)}
        style_of_pair = np.array([number[pair[0]] for pair in self.pairs])
        targets = np.array([pair[1] for pair in self.pairs])
        pairs_of = [np.flatnonzero(style_of_pair == i) for i in range(len(styles))]
        return PairStore(
            refs_U3SS=self.refs.stack(),
            targets_U3SS=self.targets.stack(),
            prompts=self.prompts,
            styles=styles,
            pair_refs_PF=_padded([pair[2] for pair in self.pairs]),
            pair_ref_heads_PF=_padded([pair[3] for pair in self.pairs]),
            pair_ref_keys_PF=_padded([pair[4] for pair in self.pairs]),
            style_pairs=pairs_of,
            style_targets=[np.unique(targets[rows]) for rows in pairs_of],
            target_heads_U=np.array(self.target_heads),
            target_keys_U=np.array(self.target_keys),
            pair_targets_P=targets,
        )


def _padded(rows: list[list[int]]) -> np.ndarray:
    padded = np.full((len(rows), max(len(row) for row in rows)), NO_REF, dtype=np.int64)
    for i, row in enumerate(rows):
        padded[i, : len(row)] = row
    return padded


def split_uri(pairs_uri: str, split: str) -> str:
    """Folder of a split's shards inside a mining output."""
    return storage.join_uri(pairs_uri, "shards", split)


def has_split(pairs_uri: str, split: str) -> bool:
    """Whether the mining output holds shards of ``split``."""
    return shards.has_shards(split_uri(pairs_uri, split))


def load_pairs(pairs_uri: str, split: str, *, ref_size: int, target_size: int) -> PairStore:
    """Read all pair shards of a split; every distinct image is decoded once.

    Args:
        pairs_uri: Output folder of mining.
        split: "train", "val" or "test".
        ref_size: Side of the reference images in pixels.
        target_size: Side of the target images in pixels.

    Raises:
        InputError: If the split has no shards, or no readable pair.
    """
    if not has_split(pairs_uri, split):
        fix = "mine pairs first, with that split"
        raise InputError("pairs", pairs_uri, f"has no {split} shards", fix)
    builder = _Builder(ImageTable(ref_size), ImageTable(target_size))
    report: Callable[[str, str], None] = _warn_dropped
    for uri in shards.list_shards(split_uri(pairs_uri, split)):
        for sample in shards.read_shard(uri, report):
            builder.add(sample)
    if not builder.pairs:
        raise InputError("pairs", pairs_uri, f"has no {split} pairs", "mine pairs first")
    return builder.build()


def _warn_dropped(key: str, reason: str) -> None:
    logger.warning("pair %s is left out: %s", key or "without a key", reason)
