import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from i2l_model.errors import InputError
from jobs.corpus.contents import CONTENT_NAMES
from jobs.corpus.stylegrid import CorpusConfig, write_corpus
from jobs.progress import NullProgress
from jobs.shards import read_shard

TINY = CorpusConfig(num_styles=3, images_per_style=4, size=32)


def _shard(folder: Path) -> Path:
    (shard,) = folder.glob("*.tar")
    return shard


def test_same_seed_same_bytes_and_another_seed_other_bytes(tmp_path: Path) -> None:
    for name, config in {
        "a": TINY,
        "b": TINY,
        "c": TINY.model_copy(update={"seed": 2}),
    }.items():
        write_corpus(config, str(tmp_path / name), NullProgress())
    first, again, other = (_shard(tmp_path / name).read_bytes() for name in "abc")
    assert first == again
    assert first != other


def test_samples_carry_labels_and_keys_do_not_tell_them(tmp_path: Path) -> None:
    write_corpus(TINY, str(tmp_path), NullProgress())
    samples = list(read_shard(str(_shard(tmp_path))))
    assert [sample.key for sample in samples] == [f"{i:08d}" for i in range(12)]
    labels = [json.loads(sample.members["json"]) for sample in samples]
    styles = [label["style_id"] for label in labels]
    assert sorted(styles) == [0] * 4 + [1] * 4 + [2] * 4
    assert styles != sorted(styles)
    for style in range(3):
        assert len({lb["content_id"] for lb in labels if lb["style_id"] == style}) == 4


def test_held_out_contents_never_appear(tmp_path: Path) -> None:
    config = CorpusConfig(
        num_styles=2, images_per_style=30, held_out_contents=("star", "fish"), size=32
    )
    write_corpus(config, str(tmp_path), NullProgress())
    drawn = {
        json.loads(sample.members["json"])["content_id"]
        for sample in read_shard(str(_shard(tmp_path)))
    }
    assert drawn == set(CONTENT_NAMES) - {"star", "fish"}


def test_unknown_held_out_content_is_refused() -> None:
    with pytest.raises(ValidationError, match="dragon"):
        CorpusConfig(held_out_contents=("dragon",))


def test_a_grid_without_contents_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"num_contents \(1\) leaves none"):
        CorpusConfig(num_contents=1, held_out_contents=CONTENT_NAMES[:1])
    assert CorpusConfig(num_contents=2, held_out_contents=CONTENT_NAMES[:1]).contents


def test_shards_of_a_killed_run_are_removed(tmp_path: Path) -> None:
    for name in ("stylegrid-00000.tar", "stylegrid-00007.tar", "strays-00000.tar"):
        (tmp_path / name).write_bytes(b"left over")
    write_corpus(TINY, str(tmp_path), NullProgress())
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["corpus.json", "strays-00000.tar", "stylegrid-00000.tar"]


def test_finished_corpus_is_reused_and_another_config_refused(tmp_path: Path) -> None:
    assert not write_corpus(TINY, str(tmp_path), NullProgress()).reused
    assert write_corpus(TINY, str(tmp_path), NullProgress()).reused
    with pytest.raises(InputError, match="another corpus"):
        write_corpus(TINY.model_copy(update={"seed": 9}), str(tmp_path), NullProgress())
