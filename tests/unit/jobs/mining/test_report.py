"""The report: numbers that add up, one safe page of bounded size, equal bytes for equal runs."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from i2l_model.errors import InputError
from i2l_model.images import encode_jpeg
from jobs.mining.examples import choose_examples
from jobs.mining.gallery import MAX_THUMBNAIL_BYTES, PictureSource, thumbnail_bytes
from jobs.mining.report import read_report, write_report
from jobs.mining.report_numbers import ReportSource
from tests.mined_pairs import NUM_DROPPED, report_source

HOSTILE = (
    "<script>alert(1)</script> \"'><img src=http://evil/x onerror=1> {{ 7*7 }} \u202eevil\x1b[2J"
)


def noise(row: int) -> bytes:
    pixels = np.random.default_rng(row).integers(0, 255, (128, 128, 3), dtype=np.uint8)
    return encode_jpeg(Image.fromarray(pixels))


class Texts(dict[int, str]):
    """The same text for every row."""

    def __init__(self, text: str) -> None:
        self.text = text

    def get(self, row: int, default: str = "") -> str:  # type: ignore[override]
        return self.text


def write(folder: Path, source: ReportSource, text: str = "a fox") -> tuple[dict, str]:
    examples = choose_examples(
        source.mined, source.reason, source.reason_names, source.drops, source.config.seed
    )
    write_report(str(folder), source, examples, PictureSource(noise, Texts(text), Texts(text)))
    page = folder / "index.html"
    return read_report(str(page)), page.read_text()


class Tags(HTMLParser):
    """Collects tags and attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.attributes: list[tuple[str, str]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]


def test_the_numbers_add_up(tmp_path: Path) -> None:
    source = report_source()
    summary, _ = write(tmp_path, source)
    steps = {step["name"]: step for step in summary["steps"]}
    chain = [(step["num_in"], step["num_out"]) for step in summary["steps"]]
    assert chain[0][0] == summary["counts"]["images"] == 74
    assert all(left[1] == right[0] for left, right in pairwise(chain))
    assert steps["ingest"]["num_in"] - steps["ingest"]["num_out"] == 8
    assert steps["aesthetic"]["decided_by"] == "scores from metadata, limit 4.5"
    assert steps["watermark"]["skipped"]
    assert steps["near_duplicate"]["num_out"] == len(source.mined.rows)
    assert summary["drops"] == NUM_DROPPED
    assert sum(split["images"] for split in summary["splits"].values()) == 60
    assert sum(summary["cut"]["scores"]["counts"]["above"]) == summary["links"]["in_styles"] == 270
    assert summary["links"]["valid_share"] == pytest.approx(1 - 9 / 270)
    assert summary["diversity"]["image_use_gini"] == 0
    assert summary["scores"]["aesthetic"]["num_unknown"] == 8
    assert "watermark" not in summary["scores"]
    caps = {cap["name"]: (cap["num_reached"], cap["num_all"]) for cap in summary["caps"]}
    assert caps == {
        "pairs that use an image": (0, 60),
        "pairs of a style": (0, 6),
        "pairs in all": (2, 63),
        "share of pairs that show a source": (1, 63),
        "splits that a style lies in": (0, 63),
    }


def test_damaged_shards_are_listed_by_what_they_lost(tmp_path: Path) -> None:
    summary, page = write(tmp_path, report_source())
    assert summary["input"]["num_damaged"] == 2
    assert [s["num_lost"] for s in summary["input"]["damaged"]] == [2, 1]
    assert summary["input"]["damaged"][0]["name"] == "a/1.tar"
    assert "2 of 2 shards are damaged" in page


def test_equal_runs_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / name, report_source())
    for name in ("report.json", "index.html"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert str(tmp_path) not in (tmp_path / "a" / "index.html").read_text()


def test_text_from_outside_stays_text(tmp_path: Path) -> None:
    source = replace(report_source(), shard_names=[HOSTILE, "b.tar"], ignored_members={HOSTILE: 1})
    _, page = write(tmp_path, source, HOSTILE)
    tags = Tags(page)
    assert "script" not in tags.names
    assert not [name for name, _ in tags.attributes if name.startswith("on")]
    assert "49" not in page.split("evil")[1][:200]
    assert "\u202e" not in page
    assert "\x1b" not in page


def test_the_page_asks_for_nothing(tmp_path: Path) -> None:
    _, page = write(tmp_path, report_source())
    tags = Tags(page)
    links = [value for name, value in tags.attributes if name in ("src", "href", "action")]
    assert links
    assert all(link.startswith(("data:image/jpeg;base64,", "#")) for link in links)
    assert not tags.names & {"link", "iframe", "script", "object", "form"}
    assert not re.search(r"url\(|@import", page)


def test_the_page_stays_small_at_any_size(tmp_path: Path) -> None:
    source = report_source(400)
    names = ["", *(f"reason_{n}" for n in range(40))]
    reason = np.concatenate([np.repeat(np.arange(1, 41), 20), np.zeros(4000, dtype=int)])
    mined = replace(source.mined, rows=np.arange(4000) + 800)
    source = replace(
        source,
        mined=mined,
        reason=reason,
        reason_names=names,
        drops=dict.fromkeys(names[1:], 20),
        shard=np.zeros(4800, dtype=int),
    )
    _, page = write(tmp_path, source)
    assert page.count("<img") < 340
    assert len(page.encode()) < 3_000_000


def test_thumbnails_are_bounded() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (300, 500, 3), dtype=np.uint8)
    data = thumbnail_bytes(Image.fromarray(pixels))
    assert len(data) <= MAX_THUMBNAIL_BYTES


def test_what_was_not_checked_is_said_first(tmp_path: Path) -> None:
    _, page = write(tmp_path, report_source())
    assert "Not checked, as the settings say: watermark." in page
    assert page.index("Not checked") < page.index("<h2>")


def test_an_output_without_a_report_is_bad_input(tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text("[")
    with pytest.raises(InputError, match="is no mining report"):
        read_report(str(tmp_path / "index.html"))
