import pytest

from i2l_model.errors import InputError
from i2l_model.predictor_sizes import full_size_config, on_meta


@pytest.mark.parametrize(
    ("backbone", "layers", "queries", "lora", "heads"),
    [
        ("z-image", 238, 7616, 39.7, 190),
        ("flux.2-klein-base-4b", 100, 3200, 24.1, 109),
        ("hidream-o1", 252, 8064, 43.6, 208),
        ("flux.2-klein-base-9b", 144, 4608, 43.5, None),
        ("flux.2-dev", 192, 6144, 100.7, None),
    ],
)
def test_full_sizes_are_the_designed_ones(backbone, layers, queries, lora, heads):
    config = full_size_config(backbone)
    predictor = on_meta(config)
    assert all(parameter.is_meta for parameter in predictor.parameters())
    assert len(config.targets) == layers
    assert predictor.heads.num_queries == queries
    numbers = sum(t.in_features + t.out_features for t in config.targets) * config.rank
    assert numbers / 1e6 == pytest.approx(lora, abs=0.05)
    if heads is not None:
        assert predictor.num_parameters()["heads"] / 1e6 == pytest.approx(heads, abs=0.6)


def test_the_encoder_is_siglip2_giant():
    encoder = on_meta(full_size_config("z-image")).encoder
    assert sum(p.numel() for p in encoder.parameters()) / 1e9 == pytest.approx(1.136, abs=0.01)


def test_version_1_of_z_image_has_1_61_billion_parameters_and_reads_5632_features():
    predictor = on_meta(full_size_config("z-image", 1))
    assert predictor.num_parameters()["heads"] / 1e9 == pytest.approx(1.61, abs=0.005)
    assert predictor.heads.groups[0].down.shape[1:] == (5632, 128)
    assert predictor.num_parameters()["dinov3"] / 1e9 == pytest.approx(6.716, abs=0.01)


def test_an_unknown_backbone_is_refused():
    with pytest.raises(InputError, match="is no released model"):
        full_size_config("sdxl")
