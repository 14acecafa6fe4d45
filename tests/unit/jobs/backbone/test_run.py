import json
from pathlib import Path

from PIL import Image

from jobs.backbone.run import _curve


def test_the_training_curve_is_drawn_from_the_logs(tmp_path: Path) -> None:
    for name in ("vae", "text-to-image"):
        lines = [json.dumps({"step": step, "loss": 1.0 / step}) for step in (1, 2, 3)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    _curve(tmp_path, tmp_path / "curve.png")
    with Image.open(tmp_path / "curve.png") as picture:
        assert picture.size == (990, 330)
        assert len(picture.convert("RGB").getcolors(1 << 20)) > 10
