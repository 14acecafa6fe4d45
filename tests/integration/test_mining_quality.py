"""What mining is accepted by: right pairs on a hard grid whose labels it does not see.

The grid's seed tuned nothing, and it has kinds of styles that the descriptor was fitted without.
"""

import pytest

from jobs.backbone.style_metric import GRIDS, WITHOUT
from tests.hard_grid import MINED, Outcome, hard_grid, mine_and_score

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("ray_cluster")]

CORPUS = hard_grid(num_styles=120, images_per_style=10, seed=501)


@pytest.fixture(scope="module")
def outcome(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return mine_and_score(CORPUS, tmp_path_factory.mktemp("hard_grid"))


def test_the_grid_is_none_that_the_descriptor_was_fitted_on() -> None:
    assert CORPUS.seed not in {grid.seed for grid in GRIDS}
    assert CORPUS.families is not None
    assert not CORPUS.families.without
    assert len(WITHOUT) == 4


def test_pairs_are_right_and_cover_the_styles(outcome: Outcome) -> None:
    mined = outcome.scores[MINED]
    assert mined.precision >= 0.95
    assert mined.style_recall >= 0.85
    assert mined.same_content <= 0.01
    assert mined.near_duplicate == 0
    assert mined.split_leak <= 0.05


def test_simpler_rules_fail_where_the_palette_does_not_tell_styles_apart(outcome: Outcome) -> None:
    colour = outcome.scores["colour histogram"]
    assert colour.precision < 0.95
    assert colour.style_recall < 0.85
    assert outcome.precision["colour histogram"]["varying_palette"] < 0.5
    for rule, scores in outcome.scores.items():
        assert rule == MINED or scores.precision < outcome.scores[MINED].precision
    assert min(outcome.precision[MINED].values()) >= 0.9
