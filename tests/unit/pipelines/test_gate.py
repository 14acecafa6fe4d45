import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from i2l_model.errors import InputError
from jobs.evaluation.config import GateConfig
from pipelines.gate import judge
from pipelines.refusals import Refused


@dataclass(frozen=True)
class Version:
    version: int
    report: dict[str, Any] | None = field(default=None, hash=False)

    @property
    def uri(self) -> str:
        return f"models:/m/{self.version}"


@dataclass
class FakeRegistry:
    """Versions with their reports, without MLflow."""

    versions: dict[int, Version]
    aliases: dict[str, int]

    def get(self, name: str, version: int) -> Version:
        return self.versions[version]

    def get_by_alias(self, name: str, alias: str) -> Version:
        return self.versions[self.aliases[alias]]

    def find_by_alias(self, name: str, alias: str) -> Version | None:
        return self.versions.get(self.aliases.get(alias, 0))

    def download_files(self, version: Version, path: str, target: Path) -> None:
        assert path == "report"
        if version.report is not None:
            (target / "report.json").write_text(json.dumps(version.report))


def registry(**aliases: int) -> Any:
    reports: dict[int, dict[str, Any]] = {1: {"schema": "x"}, 2: {"schema": "x"}}
    versions = {number: Version(number, report) for number, report in reports.items()}
    return FakeRegistry({**versions, 3: Version(3)}, aliases)


def names(judgement: Any) -> set[str]:
    return {check.name.split("/")[0] for check in judgement.decision.checks}


def test_the_candidate_is_judged_without_a_number() -> None:
    assert judge(registry(candidate=2), "m", None, GateConfig()).version.version == 2


def test_a_version_is_compared_with_the_champion() -> None:
    judgement = judge(registry(champion=1), "m", 2, GateConfig())
    assert judgement.champion is not None
    assert judgement.champion.version == 1
    assert "champion" in names(judgement)


def test_the_champion_is_not_compared_with_itself() -> None:
    judgement = judge(registry(champion=2), "m", 2, GateConfig())
    assert judgement.champion is None
    assert "champion" not in names(judgement)


def test_an_empty_report_is_refused_with_reasons() -> None:
    judgement = judge(registry(), "m", 1, GateConfig())
    with pytest.raises(Refused) as caught:
        judgement.check()
    assert "models:/m/1" in caught.value.subject
    assert any("lacks" in reason for reason in caught.value.reasons)
    assert list(caught.value.reasons) == [str(check) for check in judgement.decision.failed]


def test_a_version_without_report_is_named() -> None:
    with pytest.raises(InputError, match=r"models:/m/3.*has no readable report"):
        judge(registry(), "m", 3, GateConfig())


@pytest.mark.parametrize(
    ("aliases", "before"), [({}, 0), ({"champion": 1}, 1), ({"champion": 2}, 2)]
)
def test_the_champion_of_the_moment_is_remembered(aliases: dict[str, int], before: int) -> None:
    assert judge(registry(**aliases), "m", 2, GateConfig()).champion_before == before
