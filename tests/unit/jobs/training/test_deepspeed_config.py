from torch import nn

from jobs.training.config import TrainingConfig
from jobs.training.deepspeed_config import deepspeed_config, parameter_groups


class Module(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.queries = nn.Embedding(4, 2)
        self.linear = nn.Linear(2, 2)
        self.frozen = nn.Linear(2, 2).requires_grad_(False)


def test_batch_sizes_multiply_up() -> None:
    config = TrainingConfig(styles_per_step=24, num_workers=2, gradient_accumulation_steps=3)
    settings = deepspeed_config(config, "cpu")
    micro = settings["train_micro_batch_size_per_gpu"]
    accumulation = settings["gradient_accumulation_steps"]
    assert settings["train_batch_size"] == micro * accumulation * config.num_workers


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
