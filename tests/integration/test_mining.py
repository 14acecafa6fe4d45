"""The mining job on local Ray: blind on a labelled grid, resumable, and clear about bad input."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from i2l_model.errors import InputError
from i2l_model.images import decode_image
from jobs.corpus.stylegrid import CorpusConfig, write_corpus
from jobs.mining.config import MiningConfig
from jobs.mining.features import compute_features
from jobs.mining.result import MiningResult
from jobs.mining.run import run_mining
from jobs.mining.scoring import baseline_scores, read_index, read_labels, score_pairs
from jobs.progress import NullProgress
from jobs.shards import ShardSample, ShardWriter, read_shard
from pipelines.cli.main import run

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("ray_cluster")]

NUM_STYLES, IMAGES_A_STYLE, NUM_STRAYS = 24, 8, 40
NUM_IMAGES = NUM_STYLES * IMAGES_A_STYLE + NUM_STRAYS
CONFIG = MiningConfig.model_validate(
    {
        "split": {"val": 0.1, "test": 0.2, "min_test_styles": 3},
        "workers": {"num_ingest": 1},
    }
)


class Recorder(NullProgress):
    """Keeps what each stage reported last."""

    def __init__(self) -> None:
        self.stages: dict[str, tuple[int, int | None]] = {}

    def update(self, stage: str, done: int, total: int | None = None, note: str = "") -> None:
        self.stages[stage] = (done, total)


def mine(source: Path, output: Path, config: MiningConfig = CONFIG) -> MiningResult:
    return run_mining(config, str(source), str(output), NullProgress())


def samples_in(folder: str | Path) -> Iterator[ShardSample]:
    for path in sorted(Path(folder).rglob("*.tar")):
        yield from read_shard(str(path))


def hide_labels(source: Path, target: Path) -> None:
    """Copy shards without the JSON that holds the labels."""
    with ShardWriter(str(target), "blind") as writer:
        for sample in samples_in(source):
            members = {k: v for k, v in sample.members.items() if k != "json"}
            writer.write(sample.key, members)


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Styles of several images, and strays: images whose style nothing else has."""
    folder = tmp_path_factory.mktemp("corpus")
    config = CorpusConfig(num_styles=NUM_STYLES, images_per_style=IMAGES_A_STYLE, seed=11)
    write_corpus(config, str(folder), NullProgress())
    strays = tmp_path_factory.mktemp("strays")
    config = CorpusConfig(num_styles=NUM_STRAYS, first_style=500, images_per_style=1, seed=11)
    write_corpus(config, str(strays), NullProgress())
    with ShardWriter(str(folder), "strays") as writer:
        for sample in samples_in(strays):
            writer.write(f"stray_{sample.key}", sample.members)
    return folder


@pytest.fixture(scope="module")
def blind(labelled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("blind")
    hide_labels(labelled, folder)
    return folder


@pytest.fixture(scope="module")
def mined(blind: Path, ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> MiningResult:
    return mine(blind, tmp_path_factory.mktemp("mined"))


def test_pairs_are_right_though_labels_are_hidden(mined: MiningResult, labelled: Path) -> None:
    labels = read_labels(str(labelled))
    scores = score_pairs(read_index(mined.index_uri), labels)
    assert scores.precision >= 0.9
    assert scores.style_recall >= 0.8
    assert scores.image_recall >= 0.8
    assert scores.same_content <= 0.02
    images = {s.key: np.asarray(decode_image(s.members["png"])) for s in samples_in(labelled)}
    baselines = baseline_scores(list(images.values()), list(images), labels)
    assert max(baseline.precision for baseline in baselines.values()) < scores.precision


def test_no_style_crosses_splits(mined: MiningResult) -> None:
    rows = read_index(mined.index_uri)
    splits: dict[str, set[str]] = {}
    images: dict[str, set[str]] = {}
    for row in rows:
        splits.setdefault(row["style_id"], set()).add(row["split"])
        for key in (row["target_key"], *row["ref_keys"]):
            images.setdefault(key, set()).add(row["split"])
    assert all(len(found) == 1 for found in (*splits.values(), *images.values()))
    assert mined.counts["styles_test"] >= 3
    assert mined.counts["pairs"] == len(rows)


def test_pair_shards_hold_what_the_index_says(mined: MiningResult) -> None:
    rows = {row["pair_id"]: row for row in read_index(mined.index_uri)}
    samples = list(samples_in(mined.shards_uri))
    assert {sample.key for sample in samples} == set(rows)
    for sample in samples:
        row, described = rows[sample.key], json.loads(sample.members["json"])
        assert described["target_key"] == row["target_key"]
        assert described["ref_keys"] == row["ref_keys"]
        assert described["target_head"] not in described["ref_heads"]
        images = {name for name in sample.members if name.endswith("jpg")}
        assert images == {"target.jpg", *(f"ref_{i}.jpg" for i in range(len(row["ref_keys"])))}
        assert all(decode_image(sample.members[name]).size == (64, 64) for name in images)
    for split in ("train", "val", "test"):
        keys = {s.key for s in samples_in(f"{mined.shards_uri}/{split}")}
        assert keys == {key for key, row in rows.items() if row["split"] == split}


def test_report_and_manifest_tell_the_run(mined: MiningResult) -> None:
    manifest = json.loads(Path(mined.manifest_uri).read_text())
    assert manifest["counts"] == mined.counts
    assert manifest["counts"]["images"] == NUM_IMAGES
    assert manifest["content_hash"] == mined.content_hash
    page = Path(mined.report_uri).read_text()
    assert "data:image/jpeg;base64," in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "https://" not in page
    report = json.loads((Path(mined.report_uri).parent / "report.json").read_text())
    assert report["cut"]["transitivity"] > 0.8
    samples = pq.read_table(Path(mined.manifest_uri).parent / "samples.parquet").to_pylist()
    assert len(samples) == manifest["counts"]["images"]
    assert sum(row["used"] for row in samples) == manifest["counts"]["images_used"]


def test_finished_work_is_not_done_again(mined: MiningResult, blind: Path) -> None:
    before = Path(mined.manifest_uri).stat().st_mtime_ns
    again = mine(blind, Path(mined.manifest_uri).parent)
    assert again.reused
    assert again.content_hash == mined.content_hash
    assert Path(mined.manifest_uri).stat().st_mtime_ns == before


def test_a_killed_run_ends_with_the_same_bytes(
    mined: MiningResult, blind: Path, tmp_path: Path
) -> None:
    output = tmp_path / "resumed"
    shutil.copytree(Path(mined.manifest_uri).parent, output)
    (output / "manifest.json").unlink()
    shutil.rmtree(output / "shards")
    features = {p: p.stat().st_mtime_ns for p in (output / "features").iterdir()}
    resumed = mine(blind, output)
    assert not resumed.reused
    assert resumed.content_hash == mined.content_hash
    assert features == {p: p.stat().st_mtime_ns for p in (output / "features").iterdir()}


def test_labels_change_nothing_but_the_passed_through_json(
    mined: MiningResult, labelled: Path, tmp_path: Path
) -> None:
    seen = mine(labelled, tmp_path / "out")

    def pairs(index_uri: str) -> set[tuple[str, ...]]:
        return {(r["target_key"], *r["ref_keys"], r["split"]) for r in read_index(index_uri)}

    assert pairs(seen.index_uri) == pairs(mined.index_uri)
    sample = next(samples_in(seen.shards_uri))
    assert "style_id" in json.loads(sample.members["json"])["target_meta"]


def test_corrupt_samples_are_counted_and_the_rest_is_mined(blind: Path, tmp_path: Path) -> None:
    source = tmp_path / "in"
    shutil.copytree(blind, source)
    first = next(samples_in(blind))
    with ShardWriter(str(source), "damaged") as writer:
        writer.write("broken", {"png": b"no picture", "txt": b"a ball"})
        writer.write("copy", first.members)
    (source / "cut.tar").write_bytes((source / "blind-00000.tar").read_bytes()[:700])
    recorder = Recorder()
    result = run_mining(CONFIG, str(source), str(tmp_path / "out"), recorder)
    drops = json.loads(Path(result.manifest_uri).read_text())["drops"]
    assert drops["corrupt_image"] == 1
    assert drops["duplicate_file"] == 1
    assert drops["truncated_shard"] == 1
    assert result.counts["pairs"] > 100
    assert recorder.stages["embed"] == (3, 3)


def test_bad_input_is_named(tmp_path: Path, blind: Path) -> None:
    with pytest.raises(InputError, match="not an existing folder"):
        mine(tmp_path / "none", tmp_path / "out")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(InputError, match="holds no"):
        mine(empty, tmp_path / "out")
    (empty / "empty.tar").write_bytes(b"\0" * 10240)
    with pytest.raises(InputError, match="empty_shard"):
        mine(empty, tmp_path / "out")
    with pytest.raises(InputError, match="inside the input"):
        mine(blind, blind / "out")
    with pytest.raises(InputError, match="style_encoder"):
        mine(blind, tmp_path / "out", MiningConfig(style_encoder="none"))


def test_bad_input_that_a_worker_finds_is_told_in_one_line(
    blind: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "in"
    shutil.copytree(blind, source)
    shard = source / "blind-00000.tar"

    def compute_after_loss(*arguments: object) -> object:
        shard.unlink()
        return compute_features(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr("jobs.mining.run.compute_features", compute_after_loss)
    assert run(["mine", "--input", str(source), "--output", str(tmp_path / "out")]) == 2
    *progress, line = capfd.readouterr().err.splitlines()
    assert all(line.startswith(("hash ", "embed ")) for line in progress)
    assert re.fullmatch(rf"error: \w+ \({shard}\) does not exist; .*", line)


def test_pictures_without_repeated_styles_are_refused(tmp_path: Path, ray_cluster: None) -> None:
    config = CorpusConfig(num_styles=60, images_per_style=1, seed=11)
    write_corpus(config, str(tmp_path / "in"), NullProgress())
    with pytest.raises(InputError, match="no styles that repeat"):
        mine(tmp_path / "in", tmp_path / "out")
