import pytest

from i2l_model.errors import InputError
from jobs.training import memory_limit
from jobs.training.config import TrainingConfig
from jobs.training.memory import MemoryEstimate, estimate_memory
from jobs.training.memory_limit import check_memory

FULL = {
    "precision": "bf16",
    "num_workers": 8,
    "styles_per_step": 8,
    "predictor": {
        "rank": 16,
        "dim": 64,
        "depth": 1,
        "num_heads": 4,
        "compress_dim": 8,
        "encoder": {"image_size": 64, "patch_size": 16, "hidden_size": 32, "num_layers": 1},
    },
}


def estimate(device: str = "cpu", **changes: object) -> MemoryEstimate:
    config = TrainingConfig.model_validate({"num_workers": 4, "styles_per_step": 8, **changes})
    return estimate_memory(config, device, "a star")


@pytest.fixture(scope="module")
def plain() -> MemoryEstimate:
    return estimate(zero_stage=0)


@pytest.mark.parametrize(
    ("backbone", "num_parameters"),
    [
        ("Tongyi-MAI/Z-Image", 6_154_908_736),
        ("black-forest-labs/FLUX.2-klein-base-4B", 3_875_544_576),
        ("HiDream-ai/HiDream-O1-Image", 7_606_169_600),
    ],
)
def test_a_full_size_backbone_needs_no_weights(backbone: str, num_parameters: int) -> None:
    found = estimate("cuda", **FULL, backbone=backbone, gradient_checkpointing=True)
    assert found.num_parameters["backbone"] == num_parameters
    assert found.kept["backbone"] == 2 * num_parameters
    assert found.parts["backbone activations"] > 2**30


def test_zero_shares_out_more_with_every_stage(plain: MemoryEstimate) -> None:
    trained = plain.num_parameters["predictor, trained"]
    assert plain.kept["Adam moments"] == 8 * trained
    assert plain.kept["trained weights"] == 4 * trained
    first, third = estimate(zero_stage=1), estimate(zero_stage=3)
    assert first.kept["Adam moments"] == pytest.approx(2 * trained, rel=1e-3)
    assert first.kept["trained weights"] == 4 * trained
    assert third.kept["trained weights"] == pytest.approx(trained, rel=1e-3)


def test_checkpointing_and_smaller_passes_lower_the_activations(plain: MemoryEstimate) -> None:
    most = plain.parts["backbone activations"]
    checkpointed = estimate(zero_stage=0, gradient_checkpointing=True)
    assert checkpointed.parts["backbone activations"] < 0.5 * most
    split = estimate(zero_stage=0, gradient_accumulation_steps=2)
    assert split.parts["backbone activations"] == pytest.approx(0.5 * most, rel=0.05)


def test_an_offloaded_optimizer_leaves_the_gpu() -> None:
    here, away = (estimate("cuda", zero_stage=2, offload_optimizer=x) for x in (False, True))
    assert "Adam moments" not in away.kept
    assert away.host["Adam moments"] == here.kept["Adam moments"]
    assert away.total < here.total


def test_a_training_that_cannot_fit_is_refused_with_what_to_change() -> None:
    config = TrainingConfig(memory_gib=0.5, num_workers=1)
    with pytest.raises(
        InputError, match=r"memory_gib \(0\.5\) .* gradient_checkpointing"
    ) as refusal:
        check_memory(config, None)
    assert "\n" not in str(refusal.value)


def test_workers_share_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(memory_limit, "machine_bytes", lambda: 2**30)
    config = TrainingConfig(num_workers=4)
    assert memory_limit.worker_bytes(config, "cpu") == 2**28
    with pytest.raises(InputError, match="memory_gib"):
        check_memory(config, None)


def test_sizes_that_are_not_here_are_not_guessed(caplog: pytest.LogCaptureFixture) -> None:
    assert check_memory(TrainingConfig(backbone="./nowhere"), None) is None
    assert "no estimate" in caplog.text


def test_workers_that_hold_the_backbone_together_hold_a_share_and_gather_blocks() -> None:
    whole, shared = (
        estimate("cuda", **FULL, backbone="Tongyi-MAI/Z-Image", backbone_shards=shards)
        for shards in (1, 8)
    )
    assert shared.kept["backbone"] == pytest.approx(whole.kept["backbone"] / 8, rel=1e-3)
    gathered = shared.parts["gathered backbone"]
    assert 0.05 * whole.kept["backbone"] < gathered < 0.2 * whole.kept["backbone"]
    saved = whole.kept["backbone"] - shared.kept["backbone"] - gathered
    assert whole.total - shared.total == pytest.approx(saved, rel=1e-6)
    assert shared.host["backbone while it is loaded"] == whole.kept["backbone"]


def test_the_largest_bucket_counts(plain: MemoryEstimate) -> None:
    small, large = (
        estimate(zero_stage=0, aspect_buckets=[[32, 32], size]) for size in ([64, 64], [128, 64])
    )
    assert small.parts["backbone activations"] == plain.parts["backbone activations"]
    assert large.parts["backbone activations"] > 1.5 * small.parts["backbone activations"]


def test_a_bucket_that_does_not_fit_the_backbone_is_refused() -> None:
    with pytest.raises(InputError, match=r"training\.aspect_buckets \(\[65, 64\]\) width"):
        estimate(aspect_buckets=[[65, 64]])


def test_the_fewest_workers_that_may_go_on_count() -> None:
    usual, elastic = (estimate(zero_stage=1, min_workers=least) for least in (None, 2))
    assert elastic.kept["Adam moments"] == pytest.approx(2 * usual.kept["Adam moments"], rel=1e-3)
    assert elastic.parts["backbone activations"] > 1.5 * usual.parts["backbone activations"]
