"""Hashes stand for content, not for order or place."""

import subprocess
from pathlib import Path

import pytest
from pydantic import BaseModel

from jobs import provenance
from tests.pair_shards import write_pairs


class Config(BaseModel):
    a: int = 1
    b: dict[str, int] = {}


def test_config_hash_follows_settings() -> None:
    assert provenance.config_hash(Config(b={"x": 1, "y": 2})) == provenance.config_hash(
        Config(b={"y": 2, "x": 1})
    )
    assert provenance.config_hash(Config(a=2)) != provenance.config_hash(Config())


def test_json_hash_depends_on_values_and_not_on_their_order() -> None:
    assert provenance.json_hash({"a": 1, "b": [2]}) == provenance.json_hash({"b": [2], "a": 1})
    assert provenance.json_hash({"a": 1}) != provenance.json_hash({"a": 2})


def test_file_hash_is_that_of_the_bytes(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"abc" * 1_000_000)
    assert provenance.file_hash(str(path)) == provenance.bytes_hash(path.read_bytes())


def test_manifest_hash_ignores_order_and_place() -> None:
    entries = [{"uri": "a", "sha256": "1", "size": 1}, {"uri": "b", "sha256": "2", "size": 2}]
    moved = [dict(entry, uri="c") for entry in reversed(entries)]
    assert provenance.manifest_hash(entries) == provenance.manifest_hash(moved)
    assert provenance.manifest_hash(entries[:1]) != provenance.manifest_hash(entries)


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the running source seems to lie in; no repository yet."""
    module = tmp_path / "source" / "jobs" / "provenance.py"
    module.parent.mkdir(parents=True)
    module.write_text("")
    monkeypatch.setattr(provenance, "__file__", str(module))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    return tmp_path / "source"


def git(folder: Path, *arguments: str) -> str:
    author = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    command = ["git", "-C", str(folder), *author, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_the_revision_is_the_commit_and_says_if_files_differ(checkout: Path) -> None:
    git(checkout, "init", "-q")
    git(checkout, "add", ".")
    git(checkout, "commit", "-q", "-m", "first")
    commit = git(checkout, "rev-parse", "HEAD")
    assert len(commit) == 40
    assert provenance.git_sha() == commit
    (checkout / "jobs" / "provenance.py").write_text("changed = True")
    assert provenance.git_sha() == f"{commit}-dirty"


def test_outside_a_checkout_the_revision_is_unknown(checkout: Path) -> None:
    assert provenance.git_sha() == "unknown"


def test_versions_are_known() -> None:
    versions = provenance.environment_versions()
    assert {"python", "numpy", "ray", "torch"} <= set(versions)


def test_pairs_without_a_manifest_are_told_apart_by_their_shards(tmp_path: Path) -> None:
    folder = write_pairs(tmp_path)
    (folder / "manifest.json").unlink()
    before = provenance.pairs_hash(str(folder))
    (folder / "shards" / "train" / "pairs-00001.tar").write_bytes(b"\0" * 1024)
    assert provenance.pairs_hash(str(folder)) != before
