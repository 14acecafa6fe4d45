from pathlib import Path

import pytest
import torch

from i2l_model.errors import InputError
from jobs.progress import NullProgress
from pipelines import prediction
from pipelines.prediction import StylePredictor, write_loras
from pipelines.style_references import read_references


def test_nothing_is_written_where_a_later_lora_is_not_finite(
    predictor_folder: Path,
    references: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(prediction, "_STYLES_A_BATCH", 1)
    styles = [read_references([path]) for path in references[:2]]
    loras = [found.factors for found in StylePredictor(predictor_folder).predict(styles)]
    largest = [max(float(B.abs().max()) for B in lora.lora_B.values()) for lora in loras]
    first, second = sorted(range(2), key=largest.__getitem__)
    output = tmp_path / "loras"
    between = torch.finfo(torch.float32).max / (sum(largest) / 2)
    with pytest.raises(InputError, match=r"--strength .* is too large"):
        write_loras(
            predictor_folder,
            {output / f"{row}.safetensors": styles[row] for row in (first, second)},
            name="predictor",
            file_format="diffusers",
            strength=between,
            progress=NullProgress(),
        )
    assert not output.exists()
