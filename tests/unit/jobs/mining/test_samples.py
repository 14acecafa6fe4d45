"""Columns say what the feature files say; texts and vectors are read where they are needed."""

from pathlib import Path

import numpy as np

from tests.feature_files import feature_row, reasons_of, samples_in


def test_rows_of_all_shards_in_order(tmp_path: Path) -> None:
    dropped = feature_row(1, reason="corrupt_image", sha256="", width=0, style=b"", content=b"")
    first = [feature_row(0, source="ann", licence="CC0"), dropped]
    second = [feature_row(2, source="ann", licence="MIT", aesthetic=4.5, caption="two cats")]
    samples = samples_in(tmp_path, first, [], second, ignored='{"pkl": 2}')
    assert reasons_of(samples) == ["", "corrupt_image", ""]
    assert samples.drop_counts() == {"corrupt_image": 1}
    assert samples.shard_of(np.arange(3)).tolist() == [0, 0, 2]
    assert samples.area.tolist() == [4096, 0, 4096]
    assert samples.source[0] == samples.source[2] != 0 == samples.source[1]
    assert samples.head[0] != samples.head[2] != 0 == samples.head[1]
    assert [samples.licences[code] for code in samples.licence] == ["CC0", "", "MIT"]
    assert np.isnan(samples.aesthetic[0])
    assert samples.aesthetic[2] == 4.5
    assert samples.ignored_members == {"pkl": 6}


def test_hashes_are_the_first_128_bits(tmp_path: Path) -> None:
    digest = "0123456789abcdef" * 4
    samples = samples_in(tmp_path, [feature_row(0, sha256=digest)])
    assert samples.sha.astype(">u8").tobytes().hex() == digest[:32]


def test_texts_and_vectors_of_chosen_rows(tmp_path: Path) -> None:
    shards = [[feature_row(n) for n in numbers] for numbers in (range(3), range(3, 5))]
    samples = samples_in(tmp_path, *shards)
    rows = np.array([4, 1])
    assert list(samples.read(rows, ["key"])) == [{"row": 1, "key": "k1"}, {"row": 4, "key": "k4"}]
    style, content = samples.vectors(np.array([1, 4]), tmp_path)
    assert isinstance(style, np.memmap)
    assert style.tolist() == content.tolist() == [[1, 1], [4, 1]]
    samples.drop(np.array([2]), "nsfw")
    samples.drop(samples.area < 0, "never")
    assert reasons_of(samples) == ["", "", "nsfw", "", ""]
    assert samples.drop_counts() == {"nsfw": 1}
