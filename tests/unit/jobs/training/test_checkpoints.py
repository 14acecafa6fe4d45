import shutil
from pathlib import Path

import pytest

from i2l_model.errors import InputError
from jobs.away import ServerAway
from jobs.training import checkpoints, patience
from jobs.training.checkpoints import TrainerState, share_name, whole_files
from tests.checkpoint_files import save_checkpoint


def test_a_saved_checkpoint_is_whole_and_reads_back(tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path, 10)
    files = whole_files(str(folder))
    assert files is not None
    assert set(files) == {checkpoints.STATE, share_name(0, 2), share_name(1, 2)}
    assert checkpoints.read_state(folder).step == 10


@pytest.mark.parametrize(
    "damage", ["missing", "cut", "changed", "no manifest", "a rank is missing", "torn manifest"]
)
def test_damage_is_noticed(tmp_path: Path, damage: str) -> None:
    folder = save_checkpoint(tmp_path, 10)
    file = folder / share_name(1, 2)
    manifests = sorted(folder.glob("manifest-*"))
    if damage == "missing":
        file.unlink()
    elif damage == "cut":
        file.write_bytes(b"w" * 50)
    elif damage == "changed":
        file.write_bytes(b"w" * 99 + b"x")
    elif damage == "no manifest":
        for manifest in manifests:
            manifest.unlink()
    elif damage == "a rank is missing":
        manifests[1].unlink()
    else:
        manifests[1].write_text('{"files": {"a"')
    assert whole_files(str(folder)) is None


def test_a_checkpoint_written_again_by_fewer_ranks_is_whole(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 10, ranks=2)
    folder = save_checkpoint(tmp_path, 10, ranks=1)
    files = whole_files(str(folder))
    assert files is not None
    assert set(files) == {checkpoints.STATE, share_name(0, 1)}


def test_an_upload_waits_for_storage_that_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    waits: list[float] = []
    failures = iter([True, True, False, False, False])

    def copy(source: Path, target: str) -> None:
        if next(failures):
            raise checkpoints.storage.StorageError("no answer")
        shutil.copyfile(source, target)

    monkeypatch.setattr(checkpoints.storage, "copy_file", copy)
    monkeypatch.setattr(patience.time, "sleep", waits.append)
    target = tmp_path / "step-00000001"
    target.mkdir()
    with checkpoints.scratch_folder() as scratch:
        (scratch / share_name(0, 1)).write_bytes(b"w")
        checkpoints.write_state(scratch, TrainerState(step=1, world_size=1, zero_stage=0))
        checkpoints.write_manifest(scratch, 0, 1)
        checkpoints.upload(scratch, str(target), 60, said.append)
    assert whole_files(str(target)) is not None
    assert waits == [1.0, 2.0]
    assert len(said) == 2
    assert "no answer" in said[0]
    assert said[1].endswith("went through")


def test_storage_that_stays_away_ends_the_upload_without_a_manifest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = checkpoints.storage.copy_file

    def copy(source: Path, target: str) -> None:
        if "manifest" in target:
            raise checkpoints.storage.StorageError("no answer")
        real(source, target)

    monkeypatch.setattr(checkpoints.storage, "copy_file", copy)
    with pytest.raises(checkpoints.storage.StorageError):
        save_checkpoint(tmp_path, 10)
    assert whole_files(str(tmp_path / checkpoints.checkpoint_name(10))) is None


def test_a_state_of_another_version_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / checkpoints.STATE).write_text('{"step": 3, "unknown": 1}')
    with pytest.raises(InputError, match="is not readable"):
        checkpoints.read_state(tmp_path)


def test_a_checkpoint_is_not_judged_while_its_storage_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_checkpoint(tmp_path, 10)

    def away(uri: str) -> bytes:
        raise ServerAway("uri", uri, "cannot be reached", "start it")

    for name in ("read_bytes", "list_files"):
        with monkeypatch.context() as patched:
            patched.setattr(checkpoints.storage, name, away)
            with pytest.raises(ServerAway):
                whole_files(str(folder))
