"""Promotion of a version to champion, and the way back."""

import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Protocol

from i2l_model.errors import InputError
from jobs.registry.locking import promotion_lock
from jobs.registry.versions import CANDIDATE, CHAMPION, ModelRegistry, PredictorVersion

logger = logging.getLogger(__name__)

PROMOTED_TAG = "promoted_at"


class Decision(Protocol):
    """What promotion needs to know of a gate's decision."""

    @property
    def passed(self) -> bool:
        """Whether all checks hold."""
        ...

    @property
    def failed(self) -> Sequence[object]:
        """The checks that refuse; each reads well as text."""
        ...


class PromotionRefused(RuntimeError):
    """The gate does not let the version become champion; the message names the failed checks."""


def promote(
    registry: ModelRegistry,
    name: str,
    version: int | None = None,
    decision: Decision | None = None,
    expected_champion: int | None = None,
) -> PredictorVersion:
    """Make a version the champion, remember the one before, and return the new champion.

    Args:
        registry: Where the versions are.
        name: Registered model.
        version: Version to promote; None: the one that ``candidate`` points at.
        decision: The gate's decision; None promotes without a gate.
        expected_champion: Version that the gate compared with, 0 where there was no champion.
            When another one is champion by now, the decision is stale and the promotion stops.
            None leaves this unchecked.

    Raises:
        PromotionRefused: If the gate refuses, or the decision is stale.
        InputError: If the version does not exist or another promotion holds the lock.
    """
    target = registry.get(name, version) if version else registry.get_by_alias(name, CANDIDATE)
    if decision is not None and not decision.passed:
        failed = "; ".join(str(check) for check in decision.failed) or "no reason given"
        raise PromotionRefused(f"{name} version {target.version} is not promoted: {failed}")
    with promotion_lock(registry.client, registry.config, name):
        champion = registry.find_by_alias(name, CHAMPION)
        current = champion.version if champion else None
        if expected_champion is not None and (current or 0) != expected_champion:
            raise PromotionRefused(
                f"{name} version {target.version} was compared with champion {expected_champion}, "
                f"but the champion is {current}: evaluate again"
            )
        if current != target.version:
            history = _history_up_to(registry.champion_history(name), current)
            registry.move_champion(name, [*history, target.version])
        gate = "not asked" if decision is None else "passed"
        registry.tag(target, {PROMOTED_TAG: _now(), "gate": gate})
    logger.info("%s: champion is version %d (before: %s)", name, target.version, current)
    return registry.get(name, target.version)


def rollback(registry: ModelRegistry, name: str) -> PredictorVersion:
    """Make the champion before the present one champion again, and return it.

    Repeated calls walk further back.

    Raises:
        InputError: If there is no champion, or none before it.
    """
    with promotion_lock(registry.client, registry.config, name):
        current = registry.get_by_alias(name, CHAMPION)
        history = _history_up_to(registry.champion_history(name), current.version)[:-1]
        if not history:
            fix = "promote another version instead"
            raise InputError("version", current.uri, "has no champion before it", fix)
        registry.move_champion(name, history)
        registry.tag(current, {"rolled_back_at": _now()})
    logger.info("%s: champion is version %d again", name, history[-1])
    return registry.get(name, history[-1])


def _history_up_to(history: list[int], current: int | None) -> list[int]:
    """The history ending with ``current``, which a crash may have kept out of the records."""
    if current is None or history[-1:] == [current]:
        return history
    return [*history, current]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
