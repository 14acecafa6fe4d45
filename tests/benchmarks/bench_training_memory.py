"""Estimated against measured memory of a training worker, on the CPU.

Each case trains in a process of its own. Printed are the whole process's high-water mark, and the
increase over the same process at a negligible size. Asserts nothing.
"""

import pytest

from tests.training_memory import Workplace

CASES = [
    ("tiny", {"zero_stage": 2}),
    ("middle", {"zero_stage": 1}),
    ("middle", {"zero_stage": 2}),
    ("middle", {"zero_stage": 3}),
    ("middle", {"zero_stage": 2, "num_workers": 2}),
    ("middle", {"zero_stage": 2, "gradient_checkpointing": True}),
]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    return Workplace.build(tmp_path_factory.mktemp("memory"))


@pytest.mark.parametrize(("case", "changes"), CASES)
def test_estimate_against_measured(
    workplace: Workplace, case: str, changes: dict[str, object]
) -> None:
    comparison = workplace.compare(case, **changes)
    print(f"\n{case} {changes}: {comparison}")
