import pytest
import torch

from i2l_model.backbones.tiny import build_tiny_zimage
from jobs.evaluation.config import EvaluationConfig
from jobs.evaluation.per_style_lora import train_style_lora

CONFIG = EvaluationConfig(
    style_lora_steps=(2, 12),
    style_lora_rank=2,
    style_lora_batch_size=4,
    style_lora_learning_rate=5e-3,
)


@pytest.fixture(scope="module")
def backbone():
    return build_tiny_zimage(seed=0)


@pytest.fixture(scope="module")
def references():
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1


def train(backbone, references):
    return train_style_lora(backbone, references, ["a star", "a cup"], CONFIG, seed=3)


def outputs(backbone, lora=None):
    latents = torch.randn(2, 8, 16, 16, generator=torch.Generator().manual_seed(1))
    embeds = backbone.encode_prompts(["a star", "a cup"])
    with torch.no_grad():
        return backbone.velocity(latents, torch.tensor([0.8, 0.8]), embeds, lora)


def test_one_lora_a_budget_over_all_targets(backbone, references):
    short, long = train(backbone, references)
    assert (short.num_steps, long.num_steps) == (2, 12)
    assert 0 < short.seconds < long.seconds
    assert {t.name for t in long.factors.targets} == {t.name for t in backbone.lora_targets()}
    assert long.factors.rank == 2
    assert not torch.equal(outputs(backbone, long.factors), outputs(backbone))


def test_backbone_is_left_as_it_was(backbone, references):
    before, modules = outputs(backbone), [type(m) for m in backbone.transformer.modules()]
    names = list(backbone.transformer.state_dict())
    train(backbone, references)
    assert torch.equal(outputs(backbone), before)
    assert [type(m) for m in backbone.transformer.modules()] == modules
    assert list(backbone.transformer.state_dict()) == names
    assert not any(p.requires_grad for p in backbone.transformer.parameters())
    assert not hasattr(backbone.transformer, "peft_config")


def test_backbone_is_left_as_it_was_after_an_error(backbone, references, monkeypatch):
    before = outputs(backbone)
    monkeypatch.setattr(
        "jobs.evaluation.per_style_lora.flow_loss", lambda *_: pytest.fail.Exception("broken")
    )
    with pytest.raises(AttributeError):
        train(backbone, references)
    monkeypatch.undo()
    assert torch.equal(outputs(backbone), before)


def test_same_seed_same_lora(backbone, references):
    left, right = train(backbone, references)[-1], train(backbone, references)[-1]
    for name, factor in left.factors.lora_B.items():
        assert torch.equal(factor, right.factors.lora_B[name])


def test_training_lowers_the_loss_on_its_references(backbone, references):
    from i2l_model.flow import add_noise, flow_loss

    latents = backbone.encode_images(references).repeat(8, 1, 1, 1)
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(9))
    sigmas = torch.linspace(0.2, 0.95, len(latents))
    embeds = backbone.encode_prompts(["a star", "a cup"] * 8)

    def loss(lora):
        with torch.no_grad():
            velocity = backbone.velocity(add_noise(latents, noise, sigmas), sigmas, embeds, lora)
        return flow_loss(velocity, latents, noise).mean().item()

    assert loss(train(backbone, references)[-1].factors) < loss(None)
