"""The estimate of a training's memory against what a worker really takes."""

import pytest

from tests.training_memory import Workplace

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    return Workplace.build(tmp_path_factory.mktemp("memory"))


@pytest.mark.parametrize("case", ["tiny", "middle"])
def test_the_estimate_is_within_15_percent(workplace: Workplace, case: str) -> None:
    found = workplace.compare(case)
    assert found.ratio == pytest.approx(1, abs=0.15), found
    assert found.increase_ratio == pytest.approx(1, abs=0.15), found
