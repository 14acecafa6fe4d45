import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from i2l_model.encoder import ReferenceEncoder
from i2l_model.errors import InputError
from i2l_model.flow import add_noise, flow_loss
from i2l_model.lora.factors import LoraFactors
from i2l_model.predictor import LoraPredictor, PredictorConfig
from i2l_model.tower_config import EncoderConfig

ENCODER = EncoderConfig(image_size=32, patch_size=8, hidden_size=24, num_layers=1, num_heads=2)


def make_config(backbone, **changes) -> PredictorConfig:
    settings = {
        "backbone": backbone.name,
        "targets": backbone.lora_targets(),
        "rank": 4,
        "dim": 32,
        "depth": 2,
        "num_heads": 2,
        "compress_dim": 8,
        "encoder": ENCODER,
    }
    return PredictorConfig(**{**settings, **changes})


def make_predictor(backbone, *, trained: bool = True, **changes) -> LoraPredictor:
    torch.manual_seed(0)
    predictor = LoraPredictor.build(make_config(backbone, **changes)).eval()
    if trained:
        for name, parameter in predictor.heads.named_parameters():
            if name.endswith("up"):
                torch.nn.init.normal_(parameter, std=0.3)
    return predictor


def references(N: int = 2, K: int = 3) -> torch.Tensor:
    return torch.rand(N, K, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1


def assert_same(first: LoraFactors, second: LoraFactors, atol: float = 1e-5) -> None:
    for name in first.lora_A:
        torch.testing.assert_close(first.lora_A[name], second.lora_A[name], atol=atol, rtol=1e-4)
        torch.testing.assert_close(first.lora_B[name], second.lora_B[name], atol=atol, rtol=1e-4)


def differ(first: LoraFactors, second: LoraFactors) -> bool:
    return any(
        (first.lora_B[name] - second.lora_B[name]).abs().max() > 1e-3 for name in first.lora_B
    )


@pytest.mark.parametrize("queries", [1, 2, 4])
def test_one_lora_a_row_for_every_target(backbone, queries):
    predictor = make_predictor(backbone, queries_per_factor=queries)
    lora = predictor(references())
    assert (lora.num_loras, lora.rank) == (2, 4)
    assert lora.targets == backbone.lora_targets()


def test_an_untrained_predictor_changes_nothing_to_the_bit(backbone):
    lora = make_predictor(backbone, trained=False)(references(1))
    latents = torch.randn(2, 8, 16, 16, generator=torch.Generator().manual_seed(0))
    arguments = (latents, torch.tensor([0.3, 0.8]), backbone.encode_prompts(["a", "b"]))
    assert torch.equal(backbone.velocity(*arguments, lora), backbone.velocity(*arguments))


def test_batched_rows_equal_one_at_a_time(backbone):
    predictor, images = make_predictor(backbone), references()
    together = predictor(images)
    assert differ(together.select([0]), together.select([1]))
    for row in range(2):
        assert_same(together.select([row]), predictor(images[row : row + 1]))


def test_absent_references_have_no_effect_even_if_they_are_nan(backbone):
    predictor, images = make_predictor(backbone), references()
    mask = torch.tensor([[True, False, True], [True, True, False]])
    images[~mask] = torch.nan
    found = predictor(images, mask)
    assert_same(found.select([0]), predictor(images[:1, [0, 2]]))
    assert_same(found.select([1]), predictor(images[1:, :2]))


def test_order_and_repetition_of_the_references_have_no_effect(backbone):
    predictor, images = make_predictor(backbone), references()
    expected = predictor(images)
    assert_same(predictor(images[:, [2, 0, 1]]), expected)
    single = predictor(images[:, :1])
    assert_same(predictor(images[:, [0, 0, 0]]), single)
    assert differ(expected, single)


def test_weights_are_relative_and_zero_drops_a_reference(backbone):
    predictor, images = make_predictor(backbone), references()
    assert_same(predictor(images, None, torch.full((2, 3), 5.0)), predictor(images))
    dropped = predictor(images, None, torch.tensor([[1.0, 0.0, 1.0]] * 2))
    assert_same(dropped, predictor(images[:, [0, 2]]))
    doubled = predictor(images[:, :2], None, torch.tensor([[2.0, 1.0]] * 2))
    assert_same(doubled, predictor(images[:, [0, 0, 1]]))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_missing_values_in_a_present_reference_are_refused(backbone, value):
    images = references()
    images[1, 2, 0, 5, 5] = value
    with pytest.raises(InputError, match="ref_images"):
        make_predictor(backbone)(images)


def test_more_references_than_trained_for_are_refused(backbone):
    with pytest.raises(InputError, match="must be 1 to 2 references"):
        make_predictor(backbone, max_refs=2)(references())


def test_cached_tokens_give_the_same_lora(backbone):
    predictor, images = make_predictor(backbone), references()
    tokens = predictor.encode_references(images)
    assert tokens[0].shape == (2, 3, 16, 24)
    shares = torch.full((2, 3), 1 / 3)
    assert_same(predictor.predict_from_tokens(tokens, shares), predictor(images))


def test_neutral_references_are_mid_gray(backbone):
    predictor = make_predictor(backbone)
    gray = torch.full((1, 1, 3, 32, 32), 128 / 127.5 - 1)
    assert_same(predictor.predict_neutral(), predictor(gray))


@pytest.mark.parametrize("trainable", [False, True])
def test_gradients_reach_exactly_the_trainable_weights(backbone, trainable):
    encoder = ENCODER.model_copy(update={"trainable": trainable})
    predictor = make_predictor(backbone, encoder=encoder).train()
    lora = predictor(references(), torch.tensor([[True, True, False], [True] * 3]))
    loss = sum(factor.square().sum() for factor in [*lora.lora_A.values(), *lora.lora_B.values()])
    loss.backward()
    for name, parameter in predictor.named_parameters():
        if name.startswith("encoder.") and not trainable:
            assert parameter.grad is None
        else:
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all(), name


def test_training_teaches_it_to_tell_two_styles_apart(backbone):
    """Two references, two targets of opposite colour: the right LoRA must beat the wrong one."""
    predictor = make_predictor(backbone, trained=False).train()
    generator = torch.Generator().manual_seed(0)
    images = torch.stack([torch.full((1, 3, 32, 32), value) for value in (-0.8, 0.8)])
    data = torch.stack([torch.full((8, 16, 16), value) for value in (-1.0, 1.0)])
    data, embeds = data.repeat_interleave(2, 0), backbone.encode_prompts(["x"] * 4)
    optimizer = torch.optim.AdamW(predictor.parameters(), lr=2e-3)

    def loss(lora: LoraFactors, seed: torch.Generator) -> torch.Tensor:
        noise = torch.randn(data.shape, generator=seed)
        sigmas = torch.full((4,), 0.9)
        velocity = backbone.velocity(add_noise(data, noise, sigmas), sigmas, embeds, lora)
        return flow_loss(velocity, data, noise).mean()

    for _ in range(25):
        optimizer.zero_grad()
        loss(predictor(images), generator).backward()
        torch.nn.utils.clip_grad_norm_(predictor.parameters(), 1.0)
        optimizer.step()
    with torch.no_grad():
        lora = predictor(images)
        right = loss(lora, torch.Generator().manual_seed(5))
        wrong = loss(lora.select([1, 0]), torch.Generator().manual_seed(5))
        null = loss(lora.zeros_like(), torch.Generator().manual_seed(5))
    assert right < null - 0.1
    assert right < wrong - 0.1


def test_parameters_are_counted_by_part(backbone):
    predictor = make_predictor(backbone)
    counts = predictor.num_parameters()
    assert counts.keys() == {"encoder", "projection", "heads", "queries", "transformer"}
    assert sum(counts.values()) == sum(p.numel() for p in predictor.parameters())
    assert counts["queries"] == 2 * 28 * 32


def test_saved_and_loaded_gives_the_same_lora(backbone, tmp_path: Path):
    predictor = make_predictor(backbone)
    predictor.save_pretrained(tmp_path / "predictor")
    names = sorted(path.name for path in (tmp_path / "predictor").iterdir())
    assert names == ["config.json", "model.safetensors"]
    loaded = LoraPredictor.from_pretrained(tmp_path / "predictor")
    assert loaded.config == predictor.config
    assert not loaded.training
    assert_same(loaded(references()), predictor(references()), atol=0)


@pytest.fixture
def siglip(tmp_path: Path) -> Path:
    torch.manual_seed(3)
    ReferenceEncoder(ENCODER).vision.save_pretrained(tmp_path / "siglip")
    return tmp_path / "siglip"


def test_a_frozen_pretrained_encoder_is_not_stored_but_checked(backbone, siglip, tmp_path: Path):
    config = EncoderConfig(path_or_id=str(siglip))
    predictor = make_predictor(backbone, encoder=config)
    predictor.save_pretrained(tmp_path / "predictor")
    stored = load_file(tmp_path / "predictor/model.safetensors")
    assert not any(name.startswith("encoder.") for name in stored)
    loaded = LoraPredictor.from_pretrained(tmp_path / "predictor")
    assert_same(loaded(references()), predictor(references()), atol=0)

    ReferenceEncoder(ENCODER).vision.save_pretrained(siglip)
    with pytest.raises(InputError, match="holds other weights than the predictor was trained with"):
        LoraPredictor.from_pretrained(tmp_path / "predictor")


def test_a_trained_encoder_is_stored_and_needs_no_source(backbone, siglip, tmp_path: Path):
    config = EncoderConfig(path_or_id=str(siglip), trainable=True)
    predictor = make_predictor(backbone, encoder=config)
    predictor.save_pretrained(tmp_path / "predictor")
    siglip.rename(tmp_path / "gone")
    assert str(tmp_path) not in (tmp_path / "predictor/config.json").read_text()
    loaded = LoraPredictor.from_pretrained(tmp_path / "predictor")
    assert_same(loaded(references()), predictor(references()), atol=0)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_missing_or_damaged_file_is_refused(backbone, tmp_path: Path, name: str):
    make_predictor(backbone).save_pretrained(tmp_path)
    (tmp_path / name).write_bytes(b"{damaged")
    with pytest.raises(InputError, match=rf"predictor \(.*{name}\) is no readable"):
        LoraPredictor.from_pretrained(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(InputError, match=rf"predictor \(.*{name}\) does not exist"):
        LoraPredictor.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rank": 3.5}, "has an invalid rank"),
        ({"version": 9}, "has an invalid version"),
        ({"compress_dim": 16}, r"holds 'heads.groups.0.down' as \(24, 32, 8\), not \(24, 32, 16\)"),
        ({"depth": 3}, "lacks 'transformer.blocks.2"),
        ({"depth": 1}, "has an unknown weight 'transformer.blocks.1"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(backbone, tmp_path: Path, change, message):
    make_predictor(backbone).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(InputError, match=message):
        LoraPredictor.from_pretrained(tmp_path)


def test_missing_values_in_the_weights_are_refused(backbone, tmp_path: Path):
    make_predictor(backbone).save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["queries.weight"][0, 0] = float("nan")
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=r"holds NaN in 'queries\.weight'"):
        LoraPredictor.from_pretrained(tmp_path)
