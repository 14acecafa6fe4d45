import json
from pathlib import Path

import pytest

from i2l_model.errors import InputError
from jobs.training import checkpoints
from jobs.training.checkpoints import SNAPSHOT, TrainerState, is_whole, newest_whole

pytestmark = pytest.mark.usefixtures("process_group")


def save(experiment: Path, step: int) -> Path:
    folder = experiment / checkpoints.checkpoint_name(step)
    (folder / "deepspeed").mkdir(parents=True)
    (folder / "deepspeed" / "weights.pt").write_bytes(b"w" * 100)
    state = TrainerState(step=step, world_size=1, zero_stage=2)
    checkpoints.write_state(folder, state)
    checkpoints.write_manifest(folder)
    return folder


def write_snapshot(experiment: Path, *steps: int) -> Path:
    names = [{"checkpoint_dir_name": checkpoints.checkpoint_name(step)} for step in steps]
    path = experiment / SNAPSHOT
    content = {"checkpoint_results": names, "latest_checkpoint_result": names[-1]}
    path.write_text(json.dumps(content))
    return path


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


def test_the_newest_whole_checkpoint_is_found_behind_a_damaged_one(tmp_path: Path) -> None:
    save(tmp_path, 5)
    whole = save(tmp_path, 10)
    (save(tmp_path, 15) / "deepspeed" / "weights.pt").unlink()
    assert newest_whole(str(tmp_path)) == str(whole)


def test_an_intact_run_is_left_alone(tmp_path: Path) -> None:
    save(tmp_path, 5)
    newest = save(tmp_path, 10)
    snapshot = write_snapshot(tmp_path, 5, 10)
    assert checkpoints.prepare_storage(str(tmp_path)) == str(newest)
    assert snapshot.exists()
    assert len(checkpoints.list_checkpoints(str(tmp_path))) == 2


def test_half_a_checkpoint_and_its_snapshot_entry_are_removed(tmp_path: Path) -> None:
    whole = save(tmp_path, 5)
    (save(tmp_path, 10) / "deepspeed" / "weights.pt").unlink()
    snapshot = write_snapshot(tmp_path, 5, 10)
    assert checkpoints.prepare_storage(str(tmp_path)) == str(whole)
    assert not snapshot.exists()
    assert checkpoints.list_checkpoints(str(tmp_path)) == [str(whole)]


def test_a_torn_snapshot_does_not_keep_the_run_from_resuming(tmp_path: Path) -> None:
    whole = save(tmp_path, 5)
    write_snapshot(tmp_path, 5).write_text('{"checkpoint_res')
    assert checkpoints.prepare_storage(str(tmp_path)) == str(whole)
    assert not (tmp_path / SNAPSHOT).exists()


def test_a_snapshot_that_names_a_lost_checkpoint_is_removed(tmp_path: Path) -> None:
    whole = save(tmp_path, 10)
    snapshot = write_snapshot(tmp_path, 5, 10)
    assert checkpoints.prepare_storage(str(tmp_path)) == str(whole)
    assert not snapshot.exists()


def test_a_new_run_has_nothing_to_resume(tmp_path: Path) -> None:
    assert checkpoints.prepare_storage(str(tmp_path / "new")) is None


def test_a_state_of_another_version_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / checkpoints.STATE).write_text('{"step": 3, "unknown": 1}')
    with pytest.raises(InputError, match="is not readable"):
        checkpoints.read_state(tmp_path)
