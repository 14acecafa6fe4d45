from pathlib import Path

import pytest

from i2l_model.lora.files import load_lora
from pipelines import demo
from pipelines.demo import Demo


def test_the_latest_lora_files_stay(
    predictor_folder: Path,
    backbone_folder: Path,
    references: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(demo, "_KEPT_LORAS", 2)
    page = Demo(predictor_folder, "predictor", str(backbone_folder))
    files = [
        Path(page.run([path], "a house", 1.0, 1.0, "positive_only", 1, 0, "diffusers")[2])
        for path in references
    ]
    assert [file.parent.exists() for file in files] == [False, True, True]
    assert load_lora(files[-1])[0].num_loras == 1
