"""What is computed, and what counts as another computation."""

from pathlib import Path

from jobs.mining.config import MiningConfig
from jobs.mining.feature_plan import plan_features
from tests import tiny_checkpoints


def test_descriptors_need_no_crops() -> None:
    plan = plan_features(MiningConfig())
    assert [column for column, _ in plan.descriptors] == ["style", "content"]
    assert plan.models == plan.crops == ()
    assert plan.reduced_px == 2 * plan.working_px > 0


def test_models_that_want_the_same_pixels_share_a_crop(tmp_path: Path) -> None:
    siglip = str(tiny_checkpoints.siglip(tmp_path / "siglip"))
    labels = ("clean", "watermark")
    watermark = str(tiny_checkpoints.classifier(tmp_path / "watermark", labels))
    plan = plan_features(
        MiningConfig(
            style_encoder={"name": "megastyle", "path": siglip},
            content_encoder={"name": "siglip2", "path": siglip},
            scorers={"watermark": watermark},
        )
    )
    assert [step.column for step in plan.models] == ["style", "content", "watermark"]
    assert len({step.pixels for step in plan.models}) == len(plan.crops) == 2  # filters differ
    assert plan.descriptors == ()


def test_identity_is_of_what_shapes_features() -> None:
    def identity(**settings: object) -> str:
        return plan_features(MiningConfig(**settings)).identity

    plain = identity()
    assert identity(workers={"num_ingest": 7}) == plain
    assert identity(filters={"min_aesthetic": 5}) == plain
    assert identity(scorers={"nsfw": "skip"}) == plain
    assert identity(ingest={"min_side": 33}) != plain
