"""Stage 9: every style, and every source, goes to one split, before any pair is written.

What a ledger says of an image holds: it keeps its split, whatever is found now.

Shapes: M images.
"""

import hashlib
from collections.abc import Mapping
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from i2l_model.errors import InputError
from jobs.mining.components import Styles, styles_of
from jobs.mining.config import SplitConfig
from jobs.mining.ledger import SPLITS, Ledger

__all__ = ["SPLITS", "assign_splits", "settle_styles", "style_name"]

_MIN_IMAGES = 2  # of a style that can have a pair
_TRAIN, _VAL, _TEST = range(len(SPLITS))
_Picks: TypeAlias = "tuple[int, int, _Picks] | None"  # group, its split, those picked before


def style_name(sha: NDArray[np.uint64], salt: int = 0) -> str:
    """The style's id, made of its images' hashes (n, 2), whatever their order."""
    ordered = sha[np.lexsort((sha[:, 1], sha[:, 0]))].astype(">u8").tobytes()
    return "s" + hashlib.sha256(ordered + bytes(salt)).hexdigest()[:12]


def settle_styles(
    styles: Styles, sha: NDArray[np.uint64], ledger: Ledger
) -> tuple[Styles, list[str]]:
    """Take images out of styles that mostly lie in another split, and name the styles.

    A style that holds images of two splits of the ledger goes with the split of most of them; the
    others leave it. It keeps the id that most of its images had, where no other style has more of
    that id's images.

    Args:
        styles: As found.
        sha: (M, 2) hashes of the images.
        ledger: What was decided before.

    Returns:
        The styles and their ids.
    """
    entry = ledger.find(sha)
    if (entry >= 0).any():
        members = [_of_one_split(group, entry[group], ledger) for group in styles.members]
        left = [group for group in members if len(group) >= _MIN_IMAGES]
        styles = styles_of(left, styles.edges, len(sha))
    claimed = _claimed_ids(styles, entry, ledger)
    taken = {*ledger.style_ids, *claimed.values()}
    names = []
    for number, group in enumerate(styles.members):
        name, salt = claimed.get(number, ""), 0
        while not name:
            new = style_name(sha[group], salt)
            name, salt = ("", salt + 1) if new in taken else (new, salt)
        taken.add(name)
        names.append(name)
    return styles, names


def _of_one_split(
    group: NDArray[np.int64], entry: NDArray[np.int64], ledger: Ledger
) -> NDArray[np.int64]:
    known = entry >= 0
    splits = ledger.split[entry[known]]
    if len(np.unique(splits)) < 2:
        return group
    chosen = np.argmax(np.bincount(splits, minlength=len(SPLITS)))
    stays = ~known
    stays[known] = splits == chosen
    return group[stays]


def _claimed_ids(styles: Styles, entry: NDArray[np.int64], ledger: Ledger) -> dict[int, str]:
    """Number of a style → the id that it had; the style with most of an id's images keeps it."""
    claims: list[tuple[int, int, str]] = []
    for number, group in enumerate(styles.members):
        known = entry[group][entry[group] >= 0]
        ids, counts = np.unique(ledger.style[known], return_counts=True)
        for style, count in zip(ids.tolist(), counts.tolist(), strict=True):
            claims.append((-count, number, ledger.style_ids[style]))
    claimed: dict[int, str] = {}
    taken: set[str] = set()
    for _, number, name in sorted(claims):
        if number not in claimed and name not in taken:
            claimed[number] = name
            taken.add(name)
    return claimed


def assign_splits(
    members: Mapping[str, NDArray[np.int64]],
    sha: NDArray[np.uint64],
    source: NDArray[np.uint64],
    ledger: Ledger,
    config: SplitConfig,
) -> dict[str, str]:
    """Groups of styles that share a source go to one split each.

    Groups that the ledger knows stay where they are. The others are ordered by a seeded hash; the
    first fill the test split, the next the validation split, the rest trains.

    Args:
        members: Images by id, of the styles with pairs.
        sha: (M, 2) hashes of the images.
        source: (M,) hashes of their sources, 0 for unknown.
        ledger: What was decided before.
        config: Shares.

    Returns:
        Style id → "train", "val" or "test". A new style that ties styles of several splits
        together by its sources has none.

    Raises:
        InputError: If the least numbers asked for leave no style to train on.
    """
    names = sorted(members)
    before = [_split_before(members[name], sha, ledger) for name in names]
    groups = _groups([source[members[name]] for name in names], config)
    placed: dict[str, int] = {}
    open_groups: list[list[str]] = []
    for numbers in groups:
        known = {before[n] for n in numbers if before[n] >= 0}
        for n in numbers:
            if before[n] >= 0 or len(known) == 1:
                placed[names[n]] = before[n] if before[n] >= 0 else min(known)
        if not known:
            open_groups.append([names[n] for n in numbers])
    open_groups.sort(key=lambda group: _seeded(group[0], config.seed))
    before = np.bincount(list(placed.values()), minlength=len(SPLITS)).tolist()
    chosen = _chosen_splits([len(group) for group in open_groups], before, config)
    if chosen is None:
        raise _too_few(len(names), len(groups), len(placed), config)
    for group, split in zip(open_groups, chosen, strict=True):
        placed.update(dict.fromkeys(group, split))
    return {name: SPLITS[placed[name]] for name in names if name in placed}


def _chosen_splits(sizes: list[int], before: list[int], config: SplitConfig) -> list[int] | None:
    """Place groups: first in test, then in val, as far as they fit, the rest in train.

    Where that leaves a split with less than it needs, a few small groups are placed beforehand.

    Args:
        sizes: Styles of each group, in order.
        before: Styles that each split has already.
        config: Shares and least numbers.

    Returns:
        Places in ``SPLITS``; None where no choice gives every split what it needs.
    """
    total = sum(before) + sum(sizes)
    least = np.array([1, config.min_val_styles, config.min_test_styles])
    shares = np.array([0, round(config.val * total), round(config.test * total)])
    missing = (np.maximum(shares, least) - before).tolist()
    chosen = _filled(sizes, {}, missing)
    if (before + np.bincount(chosen, weights=sizes, minlength=len(SPLITS)) >= least).all():
        return chosen
    first = _smallest_that_suffice(sizes, np.maximum(least - before, 0).tolist())
    return None if first is None else _filled(sizes, first, missing)


def _filled(sizes: list[int], first: dict[int, int], missing: list[int]) -> list[int]:
    """Add groups in order while each brings its split nearer to what it misses."""
    chosen = dict(first)
    for split in (_TEST, _VAL):
        open_places = missing[split] - sum(sizes[g] for g, s in first.items() if s == split)
        for group, size in enumerate(sizes):
            if group not in chosen and 0 < size <= 2 * open_places:
                chosen[group] = split
                open_places -= size
    return [chosen.get(group, _TRAIN) for group in range(len(sizes))]


def _smallest_that_suffice(sizes: list[int], needed: list[int]) -> dict[int, int] | None:
    """Group → split for groups, from the smallest on, that give each split what it needs.

    For each number of styles in train and test it is enough to know the most that val can have, so
    that all choices are covered in steps of groups × needed numbers.
    """
    found: dict[tuple[int, int], tuple[int, _Picks]] = {(0, 0): (0, None)}
    for group in sorted(range(len(sizes)), key=lambda g: (sizes[g], g)):
        for (train, test), (val, picks) in list(found.items()):
            for split in (_TEST, _VAL, _TRAIN):
                has = [train, val, test]
                has[split] = min(has[split] + sizes[group], needed[split])
                best, _ = found.get((has[_TRAIN], has[_TEST]), (-1, None))
                if has[_VAL] > best:
                    found[has[_TRAIN], has[_TEST]] = has[_VAL], (group, split, picks)
        most, picks = found.get((needed[_TRAIN], needed[_TEST]), (-1, None))
        if most == needed[_VAL]:
            return _unrolled(picks)
    return None


def _unrolled(picks: "_Picks") -> dict[int, int]:
    chosen = {}
    while picks is not None:
        group, split, picks = picks
        chosen[group] = split
    return chosen


def _too_few(num_styles: int, num_groups: int, num_before: int, config: SplitConfig) -> InputError:
    needed = config.min_test_styles + config.min_val_styles + 1
    fix = "add pictures of more styles, or lower mining.split.min_val_styles and "
    fix += "mining.split.min_test_styles"
    found = f"{num_styles} style{'' if num_styles == 1 else 's'} with pairs found"
    if num_before:
        found += f", {num_before} of them in the split of an earlier run"
    if num_groups < num_styles:
        found += f", joined to {num_groups} by their sources"
        fix += ", or set mining.split.by_source=false"
    problem = f"is too few for training, validation and test ({needed} needed)"
    return InputError("input", found, problem, fix)


def _split_before(group: NDArray[np.int64], sha: NDArray[np.uint64], ledger: Ledger) -> int:
    """The ledger's split of a settled style, -1 without one."""
    entry = ledger.find(sha[group])
    known = entry[entry >= 0]
    return int(ledger.split[known[0]]) if len(known) else -1


def _groups(sources: list[NDArray[np.uint64]], config: SplitConfig) -> list[list[int]]:
    """Numbers of the styles that share sources, each group ascending."""
    if not config.by_source or not sources:
        return [[number] for number in range(len(sources))]
    style = np.repeat(np.arange(len(sources)), [len(s) for s in sources])
    known = np.concatenate(sources)
    style, known = style[known != 0], known[known != 0]
    _, column = np.unique(known, return_inverse=True)
    size = len(sources) + int(column.max(initial=-1)) + 1
    links = sparse.coo_array(
        (np.ones(len(style), np.int8), (style, len(sources) + column)), shape=(size, size)
    )
    _, label = connected_components(links, directed=False)
    found: dict[int, list[int]] = {}
    for number, group in enumerate(label[: len(sources)].tolist()):
        found.setdefault(group, []).append(number)
    return list(found.values())


def _seeded(name: str, seed: int) -> str:
    return hashlib.sha256(f"{seed}:{name}".encode()).hexdigest()
