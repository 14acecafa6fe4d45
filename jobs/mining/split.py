"""Stage 9: every style, and every source, goes to one split, before any pair is written.

What a ledger says of an image holds: it keeps its split, whatever is found now.

Shapes: M images.
"""

import hashlib
from collections.abc import Mapping

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
    if not _place(open_groups, placed, len(names), config):
        _refuse(len(names), len(groups), config)
    return {name: SPLITS[placed[name]] for name in names if name in placed}


def _place(
    groups: list[list[str]], placed: dict[str, int], num_styles: int, config: SplitConfig
) -> bool:
    """Add the groups' styles to ``placed``: to test, then val, as far as they fit, else train.

    Returns:
        Whether every split has what it needs.
    """
    train, val, test = range(len(SPLITS))
    least = {test: config.min_test_styles, val: config.min_val_styles}
    share = {test: config.test, val: config.val}
    wanted = {split: max(round(share[split] * num_styles), least[split]) for split in (test, val)}
    count = {split: list(placed.values()).count(split) for split in (train, val, test)}
    rest = list(groups)
    for split in (test, val):
        for group in list(rest):
            is_short = count[split] < least[split]
            if count[split] + len(group) <= wanted[split] or (is_short and len(rest) > 1):
                rest.remove(group)
                count[split] += len(group)
                placed.update(dict.fromkeys(group, split))
    for group in rest:
        count[train] += len(group)
        placed.update(dict.fromkeys(group, train))
    return count[train] > 0 and all(count[split] >= least[split] for split in least)


def _refuse(num_styles: int, num_groups: int, config: SplitConfig) -> None:
    needed = config.min_test_styles + config.min_val_styles + 1
    fix = "add pictures of more styles, or lower mining.split.min_val_styles and "
    fix += "mining.split.min_test_styles"
    found = f"{num_styles} style{'' if num_styles == 1 else 's'} with pairs found"
    if num_groups < num_styles:
        found += f", joined to {num_groups} by their sources"
        fix += ", or set mining.split.by_source=false"
    problem = f"is too few for training, validation and test ({needed} needed)"
    raise InputError("input", found, problem, fix)


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
