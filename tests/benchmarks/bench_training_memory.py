"""Estimated against measured memory of a training worker, on the CPU or with -m gpu on a GPU.

Each case trains in a process of its own. Printed are the whole process at its peak, and the
increase over the same process at a negligible size, on a GPU its tensors. Asserts nothing.
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
GPU_CASES = [
    ("large", {"zero_stage": 2, "offload_optimizer": True}),
    ("large", {"zero_stage": 3}),
    ("large", {"zero_stage": 1, "styles_per_step": 2, "gradient_checkpointing": False}),
    ("middle", {"zero_stage": 0}),
]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    return Workplace.build(tmp_path_factory.mktemp("memory"))


@pytest.fixture(scope="module")
def gpu_workplace(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    return Workplace.build(tmp_path_factory.mktemp("memory"), device="cuda")


@pytest.mark.parametrize(("case", "changes"), CASES)
def test_estimate_against_measured(
    workplace: Workplace, case: str, changes: dict[str, object]
) -> None:
    comparison = workplace.compare(case, **changes)
    print(f"\n{case} {changes}: {comparison}")


@pytest.mark.gpu
@pytest.mark.parametrize(("case", "changes"), GPU_CASES)
def test_estimate_against_measured_on_a_gpu(
    gpu_workplace: Workplace, case: str, changes: dict[str, object]
) -> None:
    comparison = gpu_workplace.compare(case, **changes)
    print(f"\n{case} {changes}: {comparison}")
