import json
from pathlib import Path

import pyarrow.parquet
import pytest

from i2l_model.backbones import Backbone
from i2l_model.dinov3 import Dinov3Encoder
from i2l_model.encoder import ReferenceEncoder
from i2l_model.errors import InputError
from i2l_model.tower_config import Dinov3Config, EncoderConfig
from jobs.registry.tracking import TrackingConfig
from jobs.training.config import TrainingConfig
from jobs.training.job import model_fingerprint
from jobs.training.models import build_predictor, predictor_config
from jobs.training.preparation import check_pairs, describe_origin, materialise_init
from tests.pair_shards import write_pairs


def test_good_pairs_pass_and_tell_their_longest_prompt(config: TrainingConfig, pairs: Path) -> None:
    index = pyarrow.parquet.read_table(pairs / "index.parquet")
    prompt = check_pairs(config, str(pairs))
    assert len(prompt) == max(map(len, index["target_prompt"].to_pylist()))


def test_a_folder_without_train_pairs_is_refused(config: TrainingConfig, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no train shards"):
        check_pairs(config, str(tmp_path))


def test_fewer_styles_than_a_step_wants_are_refused(config: TrainingConfig, pairs: Path) -> None:
    many = config.model_copy(update={"styles_per_step": 8})
    with pytest.raises(InputError, match="has 6 train styles, fewer than"):
        check_pairs(many, str(pairs))


def test_the_key_changes_with_what_shapes_the_result(
    config: TrainingConfig, pairs: Path, tmp_path: Path
) -> None:
    def key(config: TrainingConfig, folder: Path) -> str:
        return str(describe_origin(config, str(folder), None, None)["key"])

    first = key(config, pairs)
    assert key(config, pairs) == first
    assert key(config.model_copy(update={"seed": 1}), pairs) != first
    execution = {"max_failures": 3, "log_every": 7, "collective_timeout_s": 1000}
    assert key(config.model_copy(update=execution), pairs) == first
    assert key(config, write_pairs(tmp_path, train_styles=5)) != first


def test_a_retrained_backbone_of_equal_size_has_another_fingerprint(tmp_path: Path) -> None:
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"a" * 64)
    before = model_fingerprint(str(tmp_path))
    weights.write_bytes(b"b" * 64)
    assert model_fingerprint(str(tmp_path)) != before


@pytest.fixture
def saved(config: TrainingConfig, backbone: Backbone, tmp_path: Path) -> Path:
    folder = tmp_path / "predictor"
    build_predictor(config, backbone, None).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("name", "value"), [("rank", 1), ("dim", 8), ("backbone", "another"), ("lora_scale", 1.0)]
)
def test_a_predictor_of_another_kind_is_no_start(
    config: TrainingConfig, saved: Path, name: str, value: object
) -> None:
    stored = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps({**stored, name: value}))
    tracking = TrackingConfig(uri="sqlite:////nowhere/mlflow.db")
    with pytest.raises(InputError, match=f"has {name} {value}"):
        materialise_init(config, str(saved), str(saved.parent / "out"), tracking)


def pretrained(config: TrainingConfig, folder: Path) -> TrainingConfig:
    """The config with a trainable tower that is read from ``folder``."""
    tower = ReferenceEncoder(config.predictor.encoder)
    tower.vision.save_pretrained(folder)
    options = EncoderConfig(path_or_id=str(folder), trainable=True)
    predictor = config.predictor.model_copy(update={"encoder": options})
    return config.model_copy(update={"predictor": predictor})


def test_a_predictor_with_a_pretrained_tower_is_a_start_for_the_same_training(
    config: TrainingConfig, backbone: Backbone, tmp_path: Path
) -> None:
    config = pretrained(config, tmp_path / "tower")
    saved = tmp_path / "predictor"
    build_predictor(config, backbone, None).save_pretrained(saved)
    tracking = TrackingConfig(uri="sqlite:////nowhere/mlflow.db")
    assert materialise_init(config, str(saved), str(tmp_path / "out"), tracking) == str(saved)


def test_a_predictor_with_a_trained_dinov3_is_a_start_for_the_same_training(
    config: TrainingConfig, backbone: Backbone, tmp_path: Path
) -> None:
    sizes = {"patch_size": 8, "hidden_size": 16, "num_layers": 1, "num_heads": 2}
    sizes |= {"intermediate_size": 24, "num_registers": 2}
    biases = {"query_bias": True, "key_bias": False, "value_bias": False}
    new = Dinov3Config(**sizes, **biases, gated_mlp=True, hidden_act="silu")
    Dinov3Encoder(new, image_size=32).vision.save_pretrained(tmp_path / "dinov3")
    second = Dinov3Config(path_or_id=str(tmp_path / "dinov3"), trainable=True)
    predictor = config.predictor.model_copy(update={"dinov3": second})
    config = config.model_copy(update={"predictor": predictor})
    saved = tmp_path / "predictor"
    build_predictor(config, backbone, None).save_pretrained(saved)
    tracking = TrackingConfig(uri="sqlite:////nowhere/mlflow.db")
    assert materialise_init(config, str(saved), str(tmp_path / "out"), tracking) == str(saved)


def test_another_pretrained_tower_makes_another_training(
    config: TrainingConfig, pairs: Path, tmp_path: Path
) -> None:
    keys = []
    for _ in range(2):
        again = pretrained(config, tmp_path / "tower")  # other random weights, same place
        keys.append(describe_origin(again, str(pairs), None, None)["key"])
    assert keys[0] != keys[1]


def test_another_dinov3_at_the_same_place_makes_another_training(
    config: TrainingConfig, pairs: Path, tmp_path: Path
) -> None:
    second = Dinov3Config(path_or_id=str(tmp_path / "dinov3"))
    predictor = config.predictor.model_copy(update={"dinov3": second})
    config = config.model_copy(update={"predictor": predictor})
    keys = []
    (tmp_path / "dinov3").mkdir()
    for weights in (b"a", b"b"):
        (tmp_path / "dinov3" / "model.safetensors").write_bytes(weights)
        keys.append(describe_origin(config, str(pairs), None, None)["key"])
    assert keys[0] != keys[1]


def test_training_starts_from_the_given_weights(
    config: TrainingConfig, backbone: Backbone, saved: Path
) -> None:
    other_seed = config.model_copy(update={"seed": 7})
    fresh = build_predictor(other_seed, backbone, None)
    warm = build_predictor(other_seed, backbone, str(saved))
    original = build_predictor(config, backbone, None)
    assert not fresh.queries.weight.equal(original.queries.weight)
    assert warm.queries.weight.equal(original.queries.weight)


@pytest.mark.parametrize(
    ("origin", "init_pairs"),
    [
        (None, None),
        ({"pairs_hash": "p1", "init_hash": None}, ["p1"]),
        ({"pairs_hash": "p2", "init_hash": "w", "init_pairs": ["p1", "p2"]}, ["p1", "p2"]),
        ({"pairs_hash": "p2", "init_hash": "w"}, None),
        ({"pairs_hash": "p2", "init_hash": "w", "init_pairs": None}, None),
    ],
)
def test_the_pairs_behind_the_initial_predictor_are_recorded(
    config: TrainingConfig, pairs: Path, tmp_path: Path, origin: object, init_pairs: object
) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"w")
    if origin is not None:
        (tmp_path / "provenance.json").write_text(json.dumps(origin))
    found = describe_origin(config, str(pairs), str(tmp_path), "named")
    assert found["init_pairs"] == init_pairs
    assert describe_origin(config, str(pairs), None, None)["init_pairs"] is None


def test_target_modules_choose_layers(config: TrainingConfig, backbone: Backbone) -> None:
    some = config.predictor.model_copy(update={"target_modules": (r"attention\.to_[qv]$",)})
    names = [target.name for target in predictor_config(some, backbone).targets]
    assert names
    assert all(name.endswith(("to_q", "to_v")) for name in names)
    none = config.predictor.model_copy(update={"target_modules": ("no such layer",)})
    with pytest.raises(InputError, match="match no layer"):
        predictor_config(none, backbone)
