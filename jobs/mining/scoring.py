"""Scores mined pairs against known labels, next to baselines. For tests and benchmarks only.

Definitions:
    precision: share of pairs whose references all have the target's true style.
    ref_precision: share of (reference, target) couples of equal true style.
    style_recall: share of true styles, among those with images of two contents, that have at
        least one correct pair.
    image_recall: share of images, among those styles, that are the target or a reference of at
        least one correct pair.
    same_content: share of pairs in which a reference has the target's true content.
    near_duplicate: share of pairs in which a reference is a copy of the target.
    split_leak: share of true styles with pairs whose correct pairs lie in more than one split.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from jobs import storage
from jobs.mining.colour import colour_histogram
from jobs.mining.encoders import load_encoder
from jobs.mining.perception import oklab, squared
from jobs.shards import list_shards, read_shard


@dataclass(frozen=True, slots=True)
class Label:
    """The truth about one image.

    Attributes:
        style: Its style.
        content: What it shows.
        picture: The same for copies of one picture; "" for one without copies.
    """

    style: str
    content: str
    picture: str = ""


@dataclass(frozen=True, slots=True)
class PairScores:
    """See the module's text."""

    num_pairs: int
    precision: float
    ref_precision: float
    style_recall: float
    image_recall: float
    same_content: float
    near_duplicate: float
    split_leak: float


def read_labels(input_uri: str) -> dict[str, Label]:
    """Key → label of every sample, from "style_id", "content_id" and "picture_id" in its JSON."""
    labels: dict[str, Label] = {}
    for shard in list_shards(input_uri):
        for sample in read_shard(shard):
            meta = json.loads(sample.members["json"])
            style, content = str(meta["style_id"]), str(meta["content_id"])
            labels[sample.key] = Label(style, content, str(meta.get("picture_id", "")))
    return labels


def read_index(index_uri: str) -> list[dict[str, Any]]:
    """The rows of ``index.parquet``."""
    with storage.open_read(index_uri) as stream:
        rows: list[dict[str, Any]] = pq.read_table(stream).to_pylist()
    return rows


def score_pairs(rows: Iterable[Mapping[str, Any]], labels: Mapping[str, Label]) -> PairScores:
    """Score index rows (at least ``target_key`` and ``ref_keys``) against ``labels``."""
    rows = list(rows)
    correct_refs, num_refs, same_content, copies, correct = 0, 0, 0, 0, 0
    styles_in: dict[str, set[str]] = {}
    images: set[str] = set()
    for row in rows:
        target, refs = labels[row["target_key"]], [labels[key] for key in row["ref_keys"]]
        hits = [ref.style == target.style for ref in refs]
        num_refs, correct_refs = num_refs + len(hits), correct_refs + sum(hits)
        same_content += any(ref.content == target.content for ref in refs)
        copies += any(ref.picture == target.picture != "" for ref in refs)
        if all(hits):
            correct += 1
            styles_in.setdefault(target.style, set()).add(str(row.get("split", "")))
            images.update([row["target_key"], *row["ref_keys"]])
    pairable = _pairable_styles(labels)
    num_images = sum(label.style in pairable for label in labels.values())
    return PairScores(
        num_pairs=len(rows),
        precision=correct / max(len(rows), 1),
        ref_precision=correct_refs / max(num_refs, 1),
        style_recall=len(pairable & set(styles_in)) / max(len(pairable), 1),
        image_recall=len(images) / max(num_images, 1),
        same_content=same_content / max(len(rows), 1),
        near_duplicate=copies / max(len(rows), 1),
        split_leak=sum(len(s) > 1 for s in styles_in.values()) / max(len(styles_in), 1),
    )


def _pairable_styles(labels: Mapping[str, Label]) -> set[str]:
    contents: dict[str, set[str]] = {}
    for label in labels.values():
        contents.setdefault(label.style, set()).add(label.content)
    return {style for style, known in contents.items() if len(known) > 1}


def baseline_scores(
    images: Sequence[NDArray[np.uint8]],
    keys: Sequence[str],
    labels: Mapping[str, Label],
    *,
    num_refs: int = 4,
) -> dict[str, PairScores]:
    """Scores of ``baseline_pairs``."""
    pairs = baseline_pairs(images, keys, num_refs=num_refs)
    return {name: score_pairs(rows, labels) for name, rows in pairs.items()}


def baseline_pairs(
    images: Sequence[NDArray[np.uint8]], keys: Sequence[str], *, num_refs: int = 4, seed: int = 0
) -> dict[str, list[dict[str, Any]]]:
    """Pairs by simpler rules on the same images: each image with its nearest ``num_refs``.

    "random"; "colour histogram" (OKLab, of the whole image); "style only", the miner's style
    encoder without cut, content rules or components; "CLIP-like", one vector for what is shown and
    how, as an image embedding of CLIP is. No CLIP weights are used: it is the miner's style vector
    beside its content vector, which reads no caption here, with equal weights.

    Args:
        images: (h, w, 3) uint8 sRGB.
        keys: Their keys.
        num_refs: References of a pair.
        seed: Of "random".

    Returns:
        Rule → rows as of the index.
    """
    lab = oklab(np.stack([squared(image) for image in images]))
    no_captions = [""] * len(images)
    style = load_encoder("offline-style")(images, no_captions)
    content = load_encoder("offline-content")(images, no_captions)
    vectors = {
        "random": np.random.default_rng(seed).normal(size=(len(images), 32)).astype(np.float32),
        "colour histogram": np.sqrt(colour_histogram(lab, np.ones(lab.shape[:3], np.float32))),
        "CLIP-like": np.concatenate([content, style], axis=1),
        "style only": style,
    }
    return {name: _nearest_pairs(rows, keys, num_refs) for name, rows in vectors.items()}


def _nearest_pairs(
    vectors: NDArray[np.float32], keys: Sequence[str], num_refs: int
) -> list[dict[str, Any]]:
    similarity = vectors @ vectors.T
    np.fill_diagonal(similarity, -np.inf)
    nearest = np.argsort(-similarity, axis=1)[:, :num_refs]
    return [
        {"target_key": keys[i], "ref_keys": [keys[j] for j in row]} for i, row in enumerate(nearest)
    ]
