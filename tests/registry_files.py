"""Files to register in tests."""

import json
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import save_file

from jobs.provenance import predictor_hash


class Artefacts:
    """A predictor, a report and samples in one folder."""

    def __init__(self, folder: Path, backbone: str, value: float = 1.0) -> None:
        self.predictor = folder / "predictor"
        self.report = folder / "report" / "report.json"
        self.samples = folder / "report" / "samples"
        for path in (self.predictor, self.samples / "loras", self.samples / "images"):
            path.mkdir(parents=True)
        (self.predictor / "config.json").write_text(json.dumps({"backbone": backbone, "rank": 2}))
        save_file({"w": torch.full((4,), value)}, self.predictor / "model.safetensors")
        origin = {"pairs_hash": "p1", "git_sha": "abc", "config_hash": "c1", "run_id": "r1"}
        origin |= {"step": 900, "training": {"steps": 900}}
        (self.predictor / "provenance.json").write_text(json.dumps(origin))
        self.write_report({"backbone": backbone, "num_styles": 6})
        self.page = self.report.parent / "report" / "index.html"
        self.page.parent.mkdir()
        self.page.write_text("<p>report</p>")
        save_file({"a": torch.zeros(2)}, self.samples / "loras" / "style-0.safetensors")
        Image.new("RGB", (8, 8)).save(self.samples / "images" / "style-0.png")

    def write_report(self, report: dict[str, object]) -> None:
        """Write a report about the predictor as it is now."""
        judged = {"hash": predictor_hash(str(self.predictor))}
        self.report.write_text(json.dumps({"predictor": judged, **report}))
