"""Mining pictures by people: the recipe for pictures gives right pairs. Fetches Debian packages."""

import os
from pathlib import Path

import pytest

from tests.assets.real_pictures import DEFAULT_CACHE, MissingError, collect
from tests.real_hands import MINED, mine_and_score

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("ray_cluster"), pytest.mark.timeout(1800)]


def test_most_pairs_are_by_one_hand(ray_cluster: None, tmp_path: Path) -> None:
    cache = Path(os.environ.get("I2L_REAL_PICTURES", DEFAULT_CACHE))
    try:
        collect(tmp_path / "pictures", cache)
    except MissingError as error:
        pytest.skip(f"no pictures: {error}")
    outcome = mine_and_score(tmp_path / "pictures", tmp_path)
    mined = outcome.scores[MINED]
    assert mined.precision >= 0.9
    assert mined.same_content <= 0.01
    assert all(mined.precision > s.precision for r, s in outcome.scores.items() if r != MINED)
    assert mined.num_pairs >= 50
