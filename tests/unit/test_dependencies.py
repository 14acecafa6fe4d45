"""What the code imports is declared, not left to what other packages happen to bring."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OWN = {"i2l_model", "jobs", "pipelines", "tests"}


def declared(*extras: str) -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"]]
    for extra in extras:
        lines += project["optional-dependencies"][extra]
    return {normalised(re.split(r"[\[<>=~! ]", line)[0]) for line in lines}


def normalised(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


def imported(folder: Path) -> Iterator[str]:
    """Top-level packages of others that the code of a folder imports, at whatever depth."""
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level and node.module:
                names = [node.module]
            yield from (name.split(".")[0] for name in names)


@pytest.mark.parametrize(
    ("folder", "extras"), [("i2l_model", ()), ("jobs", ()), ("pipelines", ()), ("tests", ("dev",))]
)
def test_every_import_is_declared(folder: str, extras: tuple[str, ...]) -> None:
    others = set(imported(ROOT / folder)) - sys.stdlib_module_names - OWN
    distributions = packages_distributions()
    undeclared = {
        name
        for name in others
        if not {normalised(d) for d in distributions.get(name, [name])} & declared(*extras)
    }
    assert undeclared == set()
