import fcntl
from dataclasses import dataclass, field

import pytest

from i2l_model.errors import InputError
from jobs.registry import locking
from jobs.registry.locking import LOCK_TAG, promotion_lock
from jobs.registry.promotion import PromotionRefused, promote, rollback
from jobs.registry.tracking import Tracker, TrackingConfig
from jobs.registry.versions import CHAMPION, PREVIOUS_CHAMPION, ModelRegistry


@dataclass
class Decision:
    passed: bool
    failed: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def run_id(tracking: TrackingConfig) -> str:
    return Tracker(tracking).start("register")


@pytest.fixture
def model(registry: ModelRegistry, run_id: str, request: pytest.FixtureRequest) -> str:
    """A registered model with three versions, the last of them the candidate."""
    name = f"i2l-{request.node.name}"
    for _ in range(3):
        version = registry.create(name, "file:///nowhere", run_id, tags={})
    registry.set_alias(name, "candidate", version.version)
    return name


def champions(registry: ModelRegistry, name: str) -> tuple[int | None, int | None]:
    found = [registry.find_by_alias(name, alias) for alias in (CHAMPION, PREVIOUS_CHAMPION)]
    return tuple(version.version if version else None for version in found)


def test_promotion_and_rollback_walk_the_history(registry: ModelRegistry, model: str) -> None:
    assert champions(registry, model) == (None, None)
    assert promote(registry, model, 1, expected_champion=0).aliases == (CHAMPION,)
    assert champions(registry, model) == (1, None)
    promote(registry, model, 2)
    promote(registry, model)
    assert champions(registry, model) == (3, 2)
    assert rollback(registry, model).version == 2
    assert champions(registry, model) == (2, 1)
    assert rollback(registry, model).version == 1
    assert champions(registry, model) == (1, None)
    with pytest.raises(InputError, match="has no champion before it"):
        rollback(registry, model)
    assert "rolled_back_at" in registry.get(model, 3).tags


def test_promoting_the_champion_again_changes_nothing(registry: ModelRegistry, model: str) -> None:
    promote(registry, model, 1)
    promote(registry, model, 2)
    promote(registry, model, 2)
    assert champions(registry, model) == (2, 1)


def test_a_refusing_gate_names_its_failed_checks(registry: ModelRegistry, model: str) -> None:
    decision = Decision(False, ["leakage: 0.2", "copying: 0.3"])
    refusal = "version 3 is not promoted: leakage: 0.2; copying: 0.3"
    with pytest.raises(PromotionRefused, match=refusal):
        promote(registry, model, decision=decision)
    assert champions(registry, model) == (None, None)


def test_a_passing_gate_is_recorded(registry: ModelRegistry, model: str) -> None:
    assert promote(registry, model, decision=Decision(True)).tags["gate"] == "passed"


def test_a_decision_against_an_old_champion_is_stale(registry: ModelRegistry, model: str) -> None:
    promote(registry, model, 1)
    promote(registry, model, 2)
    with pytest.raises(PromotionRefused, match="compared with champion 1, but the champion is 2"):
        promote(registry, model, 3, Decision(True), expected_champion=1)
    with pytest.raises(PromotionRefused, match="the champion is 2"):
        promote(registry, model, 3, Decision(True), expected_champion=0)
    assert champions(registry, model) == (2, 1)


def test_a_crash_between_alias_and_history_does_not_lose_the_way_back(
    registry: ModelRegistry, model: str
) -> None:
    promote(registry, model, 1)
    registry.set_alias(model, CHAMPION, 2)  # and the process dies here
    assert rollback(registry, model).version == 1
    registry.set_alias(model, CHAMPION, 2)
    promote(registry, model, 3)
    assert champions(registry, model) == (3, 2)


def test_promoting_an_unknown_version_is_an_input_error(
    registry: ModelRegistry, model: str
) -> None:
    with pytest.raises(InputError, match="does not exist"):
        promote(registry, model, 12)


def test_an_alias_that_another_process_moves_meanwhile_is_noticed(
    registry: ModelRegistry, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        registry.client, "set_registered_model_alias", lambda *_: None, raising=True
    )
    registry_alias = registry.client.get_model_version_by_alias
    monkeypatch.setattr(
        registry.client, "get_model_version_by_alias", lambda n, a: registry_alias(n, "candidate")
    )
    with pytest.raises(RuntimeError, match="another process moved it"):
        registry.set_alias(model, CHAMPION, 1)


def test_two_promotions_exclude_each_other(registry: ModelRegistry, model: str) -> None:
    database = registry.config.database
    with database.with_name(f".{database.name}.{model}.lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with (
            pytest.raises(InputError, match="is being promoted by another process"),
            promotion_lock(registry.client, registry.config, model, timeout_s=0.3),
        ):
            pass
    with promotion_lock(registry.client, registry.config, model, timeout_s=5):
        pass


@pytest.fixture
def server(registry: ModelRegistry, monkeypatch: pytest.MonkeyPatch) -> TrackingConfig:
    """A configuration that looks like a server's, for the lock without files."""
    monkeypatch.setattr(locking, "_SETTLE_S", 0.01)
    return registry.config.model_copy(update={"uri": "http://mlflow:5000"})


def test_without_files_a_tag_excludes(
    registry: ModelRegistry, model: str, server: TrackingConfig
) -> None:
    with promotion_lock(registry.client, server, model):
        assert LOCK_TAG in registry.client.get_registered_model(model).tags
        with (
            pytest.raises(InputError, match="is being promoted"),
            promotion_lock(registry.client, server, model, timeout_s=0.3),
        ):
            pass
    assert LOCK_TAG not in registry.client.get_registered_model(model).tags


def test_the_tag_of_a_dead_process_expires(
    registry: ModelRegistry, model: str, server: TrackingConfig
) -> None:
    registry.client.set_registered_model_tag(model, LOCK_TAG, '{"token": "dead", "expires": 1.0}')
    with promotion_lock(registry.client, server, model, timeout_s=0.5):
        pass
