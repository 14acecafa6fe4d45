import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from i2l_model.errors import InputError
from pipelines.workspace import Workspace

HOLD = """
import sys
from pipelines.workspace import Workspace
place = Workspace(sys.argv[1])
place.create()
with place.locked():
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_a_second_run_is_refused_and_told_who_holds_the_workspace(
    tmp_path: Path, holder: subprocess.Popen[str]
) -> None:
    message = f"is in use by a run .pid {holder.pid} since"
    with pytest.raises(InputError, match=message), Workspace(tmp_path).locked():
        pass


def test_a_killed_run_leaves_no_lock(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with Workspace(tmp_path).locked():
        pass


def test_the_lock_is_free_after_the_block(tmp_path: Path) -> None:
    place = Workspace(tmp_path)
    place.create()
    for _ in range(2):
        with place.locked():
            pass


def test_a_file_is_no_workspace(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file"):
        Workspace(tmp_path / "file").create()
