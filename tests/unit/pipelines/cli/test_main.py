import subprocess
import sys
from importlib.metadata import version

import pytest

from pipelines.cli.main import run

COMMANDS = (
    "corpus", "pack", "mine", "train", "evaluate", "register", "promote", "rollback", "versions",
    "predict", "generate", "run",
)  # fmt: skip
LISTING = """
import sys
from pipelines.cli.main import run
code = run(["--help"])
heavy = {"torch", "ray", "dagster", "mlflow", "transformers", "boto3", "pandas"} & set(sys.modules)
print("heavy:", sorted(heavy), file=sys.stderr)
sys.exit(code)
"""


def test_help_lists_all_commands_and_imports_nothing_heavy() -> None:
    done = subprocess.run([sys.executable, "-c", LISTING], capture_output=True, text=True)
    assert done.returncode == 0
    assert "heavy: []" in done.stderr
    for command in COMMANDS:
        assert f" {command} " in done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_the_common_options_and_an_example(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert run([command, "--help"]) == 0
    shown = capsys.readouterr().out
    for expected in ("--recipe", "--set", "--dry-run", f"i2l {command}", "Example"):
        assert expected in shown


def test_without_a_command_the_help_stands_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 2
    captured = capsys.readouterr()
    assert "Start with: i2l run" in captured.out + captured.err
    assert "error:" not in captured.out + captured.err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"i2l {version('i2l')}\n"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["train"], "--pairs"),
        (["mine", "--input", "x", "--output", "y", "--nope", "1"], "--nope"),
        (["corpus", "--output", "x", "--styles", "many"], "--styles"),
        (["frobnicate"], "frobnicate"),
    ],
)
def test_a_wrong_call_is_one_line_and_exit_2(
    arguments: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert named in lines[0]
    assert "--help" in lines[0]
