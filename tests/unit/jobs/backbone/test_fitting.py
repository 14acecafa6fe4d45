import json
from pathlib import Path

import pytest
import torch
from torch import nn

from jobs.backbone.fitting import FitConfig, fit, learning_rate
from jobs.progress import NullProgress

CONFIG = FitConfig(
    steps=40, batch_size=8, lr=1e-2, warmup_steps=5, checkpoint_every=10, bf16=False, ema_decay=0.9
)


def _model() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(3, 1)


def _fit(model: nn.Module, config: FitConfig, folder: Path, stop_at: int | None = None) -> None:
    calls = 0

    def loss_of_batch(generator: torch.Generator) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if stop_at is not None and calls > stop_at:
            raise KeyboardInterrupt
        x = torch.randn(config.batch_size, 3, generator=generator)
        return (model(x) - x.sum(dim=1, keepdim=True)).square().mean()

    fit(model, loss_of_batch, config, folder, "line", NullProgress())


def test_interrupted_and_resumed_equals_uninterrupted(tmp_path: Path) -> None:
    whole, resumed = _model(), _model()
    _fit(whole, CONFIG, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        _fit(resumed, CONFIG, tmp_path / "resumed", stop_at=27)
    resumed = _model()
    _fit(resumed, CONFIG, tmp_path / "resumed")
    assert torch.equal(whole.weight, resumed.weight)
    assert torch.equal(whole.bias, resumed.bias)


def test_finished_fit_is_not_repeated(tmp_path: Path) -> None:
    model = _model()
    _fit(model, CONFIG, tmp_path)
    again = _model()
    _fit(again, CONFIG, tmp_path, stop_at=0)
    assert torch.equal(model.weight, again.weight)


def test_loss_falls_and_history_is_written(tmp_path: Path) -> None:
    _fit(_model(), CONFIG.model_copy(update={"steps": 200, "lr": 0.05}), tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "line.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(25, 201, 25))
    assert lines[-1]["loss"] < 0.1 * lines[0]["loss"]


def test_nan_loss_stops(tmp_path: Path) -> None:
    model = _model()
    with pytest.raises(FloatingPointError, match="step 0"):
        fit(
            model,
            lambda _: model.weight.sum() * float("nan"),
            CONFIG,
            tmp_path,
            "line",
            NullProgress(),
        )


def test_learning_rate_warms_up_and_decays() -> None:
    rates = [learning_rate(step, CONFIG) for step in range(40)]
    assert rates[:5] == sorted(rates[:5])
    assert max(rates) == pytest.approx(CONFIG.lr)
    assert rates[5:] == sorted(rates[5:], reverse=True)
    assert rates[-1] < 0.1 * CONFIG.lr
