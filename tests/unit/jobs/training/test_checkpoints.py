import shutil
from pathlib import Path

import pytest

from i2l_model.errors import InputError
from jobs.training import checkpoints
from jobs.training.checkpoints import TrainerState, is_whole

pytestmark = pytest.mark.usefixtures("process_group")


def save(experiment: Path, step: int) -> Path:
    folder = experiment / checkpoints.checkpoint_name(step)
    (folder / "deepspeed").mkdir(parents=True)
    (folder / "deepspeed" / "weights.pt").write_bytes(b"w" * 100)
    state = TrainerState(step=step, world_size=1, zero_stage=2)
    checkpoints.write_state(folder, state)
    checkpoints.write_manifest(folder)
    return folder


def test_a_saved_checkpoint_is_whole_and_reads_back(tmp_path: Path) -> None:
    folder = save(tmp_path, 10)
    assert is_whole(str(folder))
    assert checkpoints.read_state(folder).step == 10


@pytest.mark.parametrize("damage", ["missing", "cut", "changed", "no manifest", "torn manifest"])
def test_damage_is_noticed(tmp_path: Path, damage: str) -> None:
    folder = save(tmp_path, 10)
    file = folder / "deepspeed" / "weights.pt"
    if damage == "missing":
        file.unlink()
    elif damage == "cut":
        file.write_bytes(b"w" * 50)
    elif damage == "changed":
        file.write_bytes(b"w" * 99 + b"x")
    elif damage == "no manifest":
        (folder / checkpoints.MANIFEST).unlink()
    else:
        (folder / checkpoints.MANIFEST).write_text('{"files": {"a"')
    assert not is_whole(str(folder))


def test_a_new_start_gets_a_copy_of_the_newest_whole_checkpoint(tmp_path: Path) -> None:
    first = checkpoints.start_attempt(str(tmp_path / "run"))
    assert first.resume_uri is None
    save(Path(first.uri), 5)
    newest = save(Path(first.uri), 10)
    expected = (newest / "deepspeed" / "weights.pt").read_bytes()
    second = checkpoints.start_attempt(str(tmp_path / "run"))
    assert second.uri != first.uri
    assert second.resume_uri is not None
    assert second.resume_uri.startswith(second.uri)
    assert checkpoints.read_state(Path(second.resume_uri)).step == 10
    assert (Path(second.resume_uri) / "deepspeed" / "weights.pt").read_bytes() == expected
    assert not Path(first.uri).exists()


def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path) -> None:
    first = checkpoints.start_attempt(str(tmp_path / "run"))
    save(Path(first.uri), 5)
    (save(Path(first.uri), 10) / "deepspeed" / "weights.pt").unlink()
    second = checkpoints.start_attempt(str(tmp_path / "run"))
    assert second.resume_uri is not None
    assert checkpoints.read_state(Path(second.resume_uri)).step == 5
    assert checkpoints.list_checkpoints(str(tmp_path / "run")) == [second.resume_uri]


def test_a_start_killed_before_its_first_checkpoint_loses_nothing(tmp_path: Path) -> None:
    first = checkpoints.start_attempt(str(tmp_path / "run"))
    save(Path(first.uri), 5)
    checkpoints.start_attempt(str(tmp_path / "run"))
    third = checkpoints.start_attempt(str(tmp_path / "run"))
    assert third.resume_uri is not None
    assert checkpoints.read_state(Path(third.resume_uri)).step == 5


def test_late_writes_of_a_killed_start_do_not_reach_the_new_one(tmp_path: Path) -> None:
    first = checkpoints.start_attempt(str(tmp_path / "run"))
    save(Path(first.uri), 5)
    second = checkpoints.start_attempt(str(tmp_path / "run"))
    save(Path(first.uri), 6)
    shutil.rmtree(Path(first.uri))
    assert second.resume_uri is not None
    assert is_whole(second.resume_uri)


def test_a_state_of_another_version_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / checkpoints.STATE).write_text('{"step": 3, "unknown": 1}')
    with pytest.raises(InputError, match="is not readable"):
        checkpoints.read_state(tmp_path)
