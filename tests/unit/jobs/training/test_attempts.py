import errno
import shutil
from pathlib import Path

import pytest

from i2l_model.errors import InputError
from jobs.away import ServerAway
from jobs.training import attempts
from jobs.training.attempts import list_checkpoints, newest_whole, start_attempt
from jobs.training.checkpoints import read_state, share_name
from tests.checkpoint_files import save_checkpoint


def resumed_step(attempt_uri: str) -> int:
    uri = newest_whole(attempt_uri)
    assert uri is not None
    assert uri.startswith(attempt_uri)
    return read_state(Path(uri)).step


def test_a_new_start_gets_a_copy_of_the_newest_whole_checkpoint(tmp_path: Path) -> None:
    first = start_attempt(str(tmp_path / "run"))
    assert newest_whole(first) is None
    save_checkpoint(Path(first), 5)
    save_checkpoint(Path(first), 10)
    second = start_attempt(str(tmp_path / "run"))
    assert second != first
    assert resumed_step(second) == 10
    assert not Path(first).exists()


def test_a_damaged_checkpoint_is_passed_over_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = start_attempt(str(tmp_path / "run"))
    save_checkpoint(Path(first), 5)
    damaged = save_checkpoint(Path(first), 10)
    share = damaged / share_name(0, 2)
    share.write_bytes(bytes([share.read_bytes()[0] ^ 1]) + share.read_bytes()[1:])
    assert resumed_step(first) == 5
    assert f"{damaged} is not whole" in caplog.text
    second = start_attempt(str(tmp_path / "run"))
    assert resumed_step(second) == 5
    assert len(list_checkpoints(str(tmp_path / "run"))) == 1


def test_no_two_starts_share_a_folder(tmp_path: Path) -> None:
    first, second = (start_attempt(str(tmp_path / "run")) for _ in range(2))
    assert first != second


def test_a_start_killed_before_its_first_checkpoint_loses_nothing(tmp_path: Path) -> None:
    first = start_attempt(str(tmp_path / "run"))
    save_checkpoint(Path(first), 5)
    start_attempt(str(tmp_path / "run"))
    assert resumed_step(start_attempt(str(tmp_path / "run"))) == 5


def test_late_writes_of_a_killed_start_do_not_reach_the_new_one(tmp_path: Path) -> None:
    first = start_attempt(str(tmp_path / "run"))
    save_checkpoint(Path(first), 5)
    second = start_attempt(str(tmp_path / "run"))
    save_checkpoint(Path(first), 6)
    shutil.rmtree(Path(first))
    assert resumed_step(second) == 5


FAILURES = {
    "away": ServerAway("uri", "s3://bucket", "cannot be reached", "start it"),
    "failing": attempts.storage.StorageError("no answer"),
    "full": OSError(errno.ENOSPC, "No space left on device"),
    "full for new files": InputError("uri", "run", "cannot be written: no space", "free some"),
}


@pytest.mark.parametrize("kind", FAILURES)
def test_a_copy_that_fails_at_a_start_loses_no_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    run = str(tmp_path / "run")
    first = start_attempt(run)
    save_checkpoint(Path(first), 5)
    failure = FAILURES[kind]

    def upload(folder: Path, uri: str) -> None:
        Path(uri).mkdir(parents=True)
        (Path(uri) / "half").write_bytes(b"w")
        raise failure

    with monkeypatch.context() as patched:
        patched.setattr(attempts.storage, "upload_folder", upload)
        with pytest.raises(type(failure)):
            start_attempt(run)
    assert resumed_step(start_attempt(run)) == 5


def test_checkpoints_of_which_none_is_whole_are_kept(tmp_path: Path) -> None:
    first = start_attempt(str(tmp_path / "run"))
    share = save_checkpoint(Path(first), 5) / share_name(0, 2)
    content = share.read_bytes()
    share.write_bytes(b"")
    second = start_attempt(str(tmp_path / "run"))
    assert newest_whole(second) is None
    share.write_bytes(content)
    assert resumed_step(start_attempt(str(tmp_path / "run"))) == 5
