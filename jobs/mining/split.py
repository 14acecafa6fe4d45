"""Stage 9: every style goes to one split, before any pair is written."""

import hashlib

from i2l_model.errors import InputError
from jobs.mining.config import SplitConfig

SPLITS = ("train", "val", "test")


def style_name(image_hashes: list[str]) -> str:
    """The style's id: made of its images' sha256, so that it does not change with their order."""
    return "s" + hashlib.sha256("".join(sorted(image_hashes)).encode()).hexdigest()[:12]


def assign_splits(style_names: list[str], config: SplitConfig) -> dict[str, str]:
    """Order styles by a seeded hash; the first go to test, the next to val, the rest to train.

    Returns:
        Style name → "train", "val" or "test".

    Raises:
        InputError: If the least numbers asked for leave no style to train on.
    """
    count = len(style_names)
    num_test = max(round(config.test * count), config.min_test_styles)
    num_val = max(round(config.val * count), config.min_val_styles)
    if num_test + num_val >= count:
        needed = config.min_test_styles + config.min_val_styles + 1
        raise InputError(
            "input",
            f"{count} style{'' if count == 1 else 's'} with pairs found",
            f"is too few for training, validation and test ({needed} needed)",
            "add pictures of more styles, or lower mining.split.min_val_styles and "
            "mining.split.min_test_styles",
        )
    ordered = sorted(style_names, key=lambda name: _seeded(name, config.seed))
    return {
        name: "test" if i < num_test else "val" if i < num_test + num_val else "train"
        for i, name in enumerate(ordered)
    }


def _seeded(name: str, seed: int) -> str:
    return hashlib.sha256(f"{seed}:{name}".encode()).hexdigest()
