from torch import nn

from jobs.training.deepspeed_config import parameter_groups


class Module(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.queries = nn.Embedding(4, 2)
        self.linear = nn.Linear(2, 2)
        self.frozen = nn.Linear(2, 2).requires_grad_(False)


def test_only_matrices_are_decayed_and_frozen_weights_left_out() -> None:
    module = Module()
    decayed, free = parameter_groups(module, 0.1)
    assert decayed["weight_decay"] == 0.1
    assert [p is module.linear.weight for p in decayed["params"]] == [True]
    assert free["weight_decay"] == 0.0
    assert {id(p) for p in free["params"]} == {id(module.queries.weight), id(module.linear.bias)}


def test_empty_groups_are_left_out() -> None:
    module = nn.Linear(2, 2, bias=False)
    assert len(parameter_groups(module, 0.1)) == 1
