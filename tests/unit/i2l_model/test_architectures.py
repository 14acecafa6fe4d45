"""Both architectures, with one and with two encoders, behind the one interface."""

from pathlib import Path

import pytest
import torch

from i2l_model.dinov3 import Dinov3Encoder
from i2l_model.errors import InputError
from i2l_model.pooled_predictor import PooledPredictor
from i2l_model.predictor import LoraPredictor, PredictorConfig
from i2l_model.query_predictor import QueryPredictor
from i2l_model.tower_config import Dinov3Config, EncoderConfig

ENCODER = EncoderConfig(image_size=32, patch_size=8, hidden_size=24, num_layers=1, num_heads=2)
DINOV3 = Dinov3Config(
    patch_size=16,
    hidden_size=16,
    num_layers=1,
    num_heads=2,
    intermediate_size=24,
    num_registers=2,
    gated_mlp=False,
    query_bias=True,
    key_bias=False,
    value_bias=True,
    hidden_act="gelu",
)
KINDS = [(1, None), (1, DINOV3), (2, None), (2, DINOV3)]


def build(backbone, version: int, dinov3: Dinov3Config | None, **changes) -> LoraPredictor:
    torch.manual_seed(0)
    settings = {
        "version": version,
        "backbone": backbone.name,
        "targets": backbone.lora_targets(),
        "rank": 4,
        "dim": 32,
        "depth": 2,
        "num_heads": 2,
        "compress_dim": 8,
        "encoder": ENCODER,
        "dinov3": dinov3,
    }
    predictor = LoraPredictor.build(PredictorConfig(**{**settings, **changes})).eval()
    for name, parameter in predictor.heads.named_parameters():
        if name.endswith("up"):
            torch.nn.init.normal_(parameter, std=0.3)
    return predictor


@pytest.fixture(params=KINDS, ids=["v1", "v1-dinov3", "v2", "v2-dinov3"])
def predictor(request, backbone) -> LoraPredictor:
    return build(backbone, *request.param)


def references(N: int = 2, K: int = 3) -> torch.Tensor:
    return torch.rand(N, K, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1


def assert_same_update(first, second) -> None:
    for name in list(first.lora_A)[::5]:
        torch.testing.assert_close(first.delta(name), second.delta(name), atol=1e-4, rtol=1e-3)


def test_the_version_decides_the_class(backbone):
    assert isinstance(build(backbone, 1, None), PooledPredictor)
    assert isinstance(build(backbone, 2, None), QueryPredictor)


def test_rank_grows_with_the_references_in_version_1_only(predictor):
    growth = 3 if predictor.config.version == 1 else 1
    lora = predictor(references())
    assert (lora.num_loras, lora.rank) == (2, 4 * growth)
    assert lora.targets == predictor.config.targets


def test_order_masks_and_weights(predictor):
    images = references()
    assert_same_update(predictor(images[:, [2, 0, 1]]), predictor(images))
    mask = torch.tensor([[True, False, True]] * 2)
    assert_same_update(predictor(images, mask), predictor(images[:, [0, 2]]))
    doubled = predictor(images[:, :2], None, torch.tensor([[2.0, 1.0]] * 2))
    assert_same_update(doubled, predictor(images[:, [0, 0, 1]]))


def test_version_1_is_the_mean_of_one_lora_a_reference(backbone):
    predictor, images = build(backbone, 1, DINOV3), references(1)
    joined = predictor(images)
    singles = [predictor(images[:, k : k + 1]) for k in range(3)]
    for name in joined.lora_A:
        expected = sum(single.delta(name) for single in singles) / 3
        torch.testing.assert_close(joined.delta(name), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("version", [1, 2])
def test_the_second_encoder_matters(backbone, version):
    predictor, images = build(backbone, version, DINOV3), references(1, 1)
    before = predictor(images)
    for parameter in predictor.dinov3.parameters():
        torch.nn.init.normal_(parameter)
    after = predictor(images)
    assert any(
        (before.lora_B[name] - after.lora_B[name]).abs().max() > 1e-3 for name in after.lora_B
    )


@pytest.mark.parametrize("trained", [(False, True), (True, False)])
@pytest.mark.parametrize("version", [1, 2])
def test_each_encoder_is_frozen_or_trained_by_itself(backbone, version, trained):
    encoder, dinov3 = (
        config.model_copy(update={"trainable": train})
        for config, train in zip((ENCODER, DINOV3), trained, strict=True)
    )
    predictor = build(backbone, version, dinov3, encoder=encoder).train()
    lora = predictor(references())
    sum(f.square().sum() for f in [*lora.lora_A.values(), *lora.lora_B.values()]).backward()
    frozen = "encoder." if not trained[0] else "dinov3."
    for name, parameter in predictor.named_parameters():
        if name.startswith(frozen) or name == "dinov3.vision.embeddings.mask_token":
            assert parameter.grad is None, name
        else:
            assert parameter.grad is not None, name


def test_saved_and_loaded_gives_the_same_lora(predictor, tmp_path: Path):
    predictor.save_pretrained(tmp_path)
    loaded = LoraPredictor.from_pretrained(tmp_path)
    assert type(loaded) is type(predictor)
    assert loaded.config == predictor.config
    expected, found = predictor(references()), loaded(references())
    for name in expected.lora_A:
        assert torch.equal(found.lora_B[name], expected.lora_B[name])


def test_a_changed_second_encoder_is_noticed(backbone, tmp_path: Path):
    tower = Dinov3Encoder(DINOV3, image_size=32).vision
    tower.save_pretrained(tmp_path / "dinov3")
    config = Dinov3Config(path_or_id=str(tmp_path / "dinov3"))
    build(backbone, 2, config).save_pretrained(tmp_path / "predictor")
    LoraPredictor.from_pretrained(tmp_path / "predictor")
    Dinov3Encoder(DINOV3, image_size=32).vision.save_pretrained(tmp_path / "dinov3")
    with pytest.raises(InputError, match=r"dinov3.path_or_id \(.*\) holds other weights"):
        LoraPredictor.from_pretrained(tmp_path / "predictor")


def test_bf16_is_finite_and_near_fp32(predictor):
    with torch.no_grad():
        exact, rounded = predictor(references()), predictor.bfloat16()(references())
    for name in exact.lora_A:
        expected, found = exact.delta(name), rounded.to(dtype=torch.float32).delta(name)
        assert torch.isfinite(found).all()
        assert (found - expected).norm() < 0.1 * expected.norm()


@pytest.mark.parametrize("version", [1, 2])
def test_compiled_in_one_graph_equals_eager(backbone, version):
    targets = backbone.lora_targets()[:3]
    predictor = build(backbone, version, DINOV3, targets=targets, depth=1)
    images = references()
    with torch.no_grad():
        expected = predictor(images)
        predictor.compile(fullgraph=True, backend="aot_eager")
        found = predictor(images)
        with pytest.raises(InputError, match="ref_mask"):
            predictor(images, torch.zeros(2, 3, dtype=torch.bool))
    for name in expected.lora_A:
        torch.testing.assert_close(found.lora_A[name], expected.lora_A[name])
        torch.testing.assert_close(found.lora_B[name], expected.lora_B[name])
