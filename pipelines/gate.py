"""The gate in front of promotion: a registered version against its null and the champion."""

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from i2l_model.errors import InputError
from jobs.evaluation.config import GateConfig
from pipelines.refusals import Refused

if TYPE_CHECKING:
    from jobs.evaluation.gate import GateDecision
    from jobs.registry.versions import ModelRegistry, PredictorVersion


@dataclass(frozen=True)
class Judgement:
    """Outcome of the gate for one version.

    Attributes:
        version: The version that was judged.
        champion: The champion it was compared with; None when there is none yet.
        champion_before: Number of the version that was champion then; 0 when none was.
        decision: All checks with their values and bounds.
    """

    version: "PredictorVersion"
    champion: "PredictorVersion | None"
    champion_before: int
    decision: "GateDecision"

    @property
    def reasons(self) -> list[str]:
        """One line for every check that did not pass."""
        return [str(check) for check in self.decision.failed]

    def check(self) -> None:
        """Raise Refused unless the version passed."""
        if self.reasons or not self.decision.passed:
            raise Refused(f"gate of {self.version.uri}", self.reasons)


def judge(
    registry: "ModelRegistry", name: str, version: int | None, config: GateConfig
) -> Judgement:
    """Put the registered report of a version in front of the gate.

    Args:
        registry: Where the versions are.
        name: Registered model.
        version: Number of the version; None takes the candidate.
        config: Bounds of the gate.

    Raises:
        InputError: If the version does not exist or was registered without a report.
    """
    from jobs.evaluation.gate import decide
    from jobs.registry.versions import CANDIDATE, CHAMPION

    target = registry.get(name, version) if version else registry.get_by_alias(name, CANDIDATE)
    champion = registry.find_by_alias(name, CHAMPION)
    champion_before = champion.version if champion else 0
    if champion_before == target.version:
        champion = None
    champion_report = read_report(registry, champion) if champion else None
    decision = decide(read_report(registry, target), config, champion_report)
    return Judgement(target, champion, champion_before, decision)


def promote_judged(registry: "ModelRegistry", judgement: Judgement) -> "PredictorVersion":
    """Make a judged version the champion and return it.

    Raises:
        Refused: If the gate refused it, or another champion came up since it was judged.
    """
    from jobs.registry.promotion import PromotionRefused, promote

    judgement.check()
    version, expected = judgement.version, judgement.champion_before
    try:
        return promote(registry, version.name, version.version, judgement.decision, expected)
    except PromotionRefused as error:
        raise Refused(f"promotion of {version.uri}", [str(error)]) from error


def read_report(registry: "ModelRegistry", version: "PredictorVersion") -> dict[str, Any]:
    """Return the evaluation report that was registered with a version.

    Raises:
        InputError: If it has none.
    """
    from jobs.evaluation.schema import REPORT_FILE

    with tempfile.TemporaryDirectory(prefix="i2l-report-") as scratch:
        registry.download_files(version, "report", Path(scratch))
        path = Path(scratch) / REPORT_FILE
        try:
            report = json.loads(path.read_bytes())
        except (OSError, ValueError):
            fix = "register the predictor with the report.json of i2l evaluate"
            raise InputError("version", version.uri, "has no readable report", fix) from None
    if not isinstance(report, dict):
        raise InputError("version", version.uri, "has no report", "register it again")
    return report
