from pathlib import Path

import torch

from i2l_model.lora.factors import LoraFactors
from jobs.evaluation.chunk import ChunkResult
from jobs.evaluation.chunk_files import clear_outputs, read_chunk, write_chunk


def result(style: str) -> ChunkResult:
    lora = LoraFactors({"x": torch.ones(1, 2, 4)}, {"x": torch.ones(1, 4, 2)})
    images = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    return ChunkResult(
        reader="classifier",
        values={"null": {"kid": {style: [0.5]}}},
        losses={},
        seconds={},
        feature_styles={},
        features={"null": torch.ones(2, 3)},
        pictures={},
        loras={style: lora},
        samples={f"{style}/i2l_1": images},
    )


def files(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


def test_a_chunk_is_read_back_for_the_same_inputs_only(tmp_path: Path) -> None:
    write_chunk(str(tmp_path), 3, result("grid-1-7"), inputs_hash="a")
    found = read_chunk(str(tmp_path), 3, inputs_hash="a")
    assert found is not None
    assert found.values == {"null": {"kid": {"grid-1-7": [0.5]}}}
    assert torch.equal(found.features["null"], torch.ones(2, 3))
    assert read_chunk(str(tmp_path), 3, inputs_hash="b") is None
    assert read_chunk(str(tmp_path), 4, inputs_hash="a") is None
    assert files(tmp_path / "samples") == {
        "loras/grid-1-7.safetensors", "images/grid-1-7-i2l_1-0.png", "images/grid-1-7-i2l_1-1.png"
    }  # fmt: skip


def test_what_an_earlier_evaluation_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "samples").mkdir()
    (tmp_path / "samples" / "mine.png").write_bytes(b"")
    clear_outputs(str(tmp_path))
    assert files(tmp_path) == {"samples/mine.png"}

    write_chunk(str(tmp_path), 0, result("grid-1-7"), inputs_hash="a")
    for name in ("report.json", "report/index.html", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    clear_outputs(str(tmp_path))
    assert files(tmp_path) == {"notes.txt"}
