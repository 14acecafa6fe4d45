"""Painters with known faults go through the whole evaluation; the gate has to tell them apart.

Samples are drawn by the corpus' renderer instead of a backbone, so that it is known what a
predictor of each kind would draw.
"""

import functools
import json
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from i2l_model.backbones.tiny import build_tiny_zimage
from i2l_model.predictor import LoraPredictor, PredictorConfig
from i2l_model.tower_config import EncoderConfig
from jobs.corpus.render import render
from jobs.corpus.styles import sample_style
from jobs.evaluation import models as evaluation_models
from jobs.evaluation import workers
from jobs.evaluation.chunk import ChunkEvaluation
from jobs.evaluation.conditions import NULL, WRONG_REFS, picture_tensor
from jobs.evaluation.config import EvaluationConfig, GateConfig
from jobs.evaluation.gate import decide
from jobs.evaluation.held_out import HeldOutPrompt, HeldOutStyle
from jobs.evaluation.run import run_evaluation
from jobs.provenance import pairs_hash
from tests.grid_pairs import SEED, write_grid_pairs

Draw = Callable[[HeldOutStyle, HeldOutPrompt], Tensor]
drawn_contents: dict[bytes, str] = {}


def painted(content: str, style_id: int) -> Tensor:
    """(3,64,64) in [0,1]; remembers what it shows."""
    pixels = torch.from_numpy(render(content, sample_style(style_id, SEED)).image)
    return remembered(pixels.permute(2, 0, 1).float() / 255, content)


def remembered(image: Tensor, content: str) -> Tensor:
    drawn_contents[image.numpy().tobytes()] = content
    return image


class RememberingReader:
    """Reads samples without error."""

    name = "classifier"

    def read(self, samples: Tensor, candidates: Sequence[object]) -> list[str]:
        return [drawn_contents.get(sample.numpy().tobytes(), "nothing") for sample in samples]


def null(style: HeldOutStyle, prompt: HeldOutPrompt) -> Tensor:
    return painted(prompt.subject, 5000 + prompt.seeds[0] % 1000)


def honest(style: HeldOutStyle, prompt: HeldOutPrompt) -> Tensor:
    """Two thirds of the way from the null to the oracle."""
    oracle = painted(prompt.subject, prompt.grid.style_id)
    return remembered(oracle * 2 / 3 + null(style, prompt) / 3, prompt.subject)


def better(style: HeldOutStyle, prompt: HeldOutPrompt) -> Tensor:
    oracle = painted(prompt.subject, prompt.grid.style_id)
    return remembered(oracle * 0.9 + null(style, prompt) * 0.1, prompt.subject)


def leaking(style: HeldOutStyle, prompt: HeldOutPrompt) -> Tensor:
    """Every second prompt shows a reference's content instead, drawn anew in the right style."""
    if prompt == style.prompts[0]:
        return painted(style.references[0].subject, prompt.grid.style_id)
    return honest(style, prompt)


def copying(style: HeldOutStyle, prompt: HeldOutPrompt) -> Tensor:
    return (picture_tensor(style.references[:1], 64)[0] + 1) / 2


def blurring(style: HeldOutStyle, prompt: HeldOutPrompt) -> Tensor:
    oracle = painted(prompt.subject, prompt.grid.style_id)
    blurred = torch.nn.functional.avg_pool2d(oracle[None], 9, 1, 4, count_include_pad=False)[0]
    return remembered(blurred, prompt.subject)


def failing_once(style: HeldOutStyle, prompt: HeldOutPrompt) -> Tensor:
    if style.name.endswith("104") and prompt == style.prompts[0]:
        return remembered(torch.full((3, 64, 64), 0.5), prompt.subject)
    return honest(style, prompt)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str, str]:
    """Backbone, predictor and pairs; the first two only provide latents and timings."""
    folder = tmp_path_factory.mktemp("gate")
    backbone = build_tiny_zimage(seed=0, folder=folder / "backbone")
    predictor = LoraPredictor.build(
        PredictorConfig(
            backbone="tiny-zimage",
            targets=backbone.lora_targets()[:2],
            rank=1,
            dim=16,
            depth=1,
            num_heads=2,
            compress_dim=4,
            encoder=EncoderConfig(hidden_size=16, num_layers=1, num_heads=2),
        )
    )
    predictor.save_pretrained(folder / "predictor")
    pairs = write_grid_pairs(folder / "pairs", test=range(100, 112))
    origin = json.dumps({"pairs_hash": pairs_hash(pairs)})
    (folder / "predictor" / "provenance.json").write_text(origin)
    return str(folder / "backbone"), str(folder / "predictor"), pairs


@pytest.fixture(scope="module")
def report_of(inputs, tmp_path_factory: pytest.TempPathFactory):
    """report_of(painter): the report of a predictor that draws so; made once a painter."""
    folder = tmp_path_factory.mktemp("reports")
    backbone, predictor, pairs = inputs
    config = EvaluationConfig(
        backbone=backbone,
        num_styles=12,
        num_prompts=2,
        style_lora_num_styles=0,
        loss_num_targets=1,
        bootstrap_num_samples=200,
        styles_per_chunk=12,
        num_workers=0,
        report_num_styles=1,
        sample_num_styles=0,
    )

    def evaluate(painter: Draw) -> dict:
        class Painter(ChunkEvaluation):
            def draw(self, condition, styles, lora):
                draws = null if condition in (NULL, WRONG_REFS) else painter
                return torch.stack([draws(s, prompt) for s in styles for prompt in s.prompts])

            def _losses(self, styles, loras):
                """The squared distance to the oracle stands for the flow loss."""
                names = [style.name for style in styles]
                for condition, lora in loras.items():
                    gap = self.draw(condition, styles, lora) - self.draw_oracle(styles)
                    rows = gap.square().mean((1, 2, 3)).unflatten(0, (len(names), -1)).tolist()
                    self.result.losses[condition] = dict(zip(names, rows, strict=True))

            def draw_oracle(self, styles):
                shown = [(p.subject, p.grid.style_id) for s in styles for p in s.prompts]
                return torch.stack([painted(*each) for each in shown])

        output = str(folder / painter.__name__)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(evaluation_models, "choose_reader", lambda *_: RememberingReader())
            patch.setattr(workers, "ChunkEvaluation", Painter)
            return run_evaluation(config, predictor, pairs, output).report

    return functools.cache(evaluate)


def refused_axes(report: dict, champion: dict | None = None) -> set[str]:
    return {check.axis for check in decide(report, GateConfig(), champion).failed}


def test_honest_painter_passes(report_of):
    report = report_of(honest)
    assert refused_axes(report) == set()
    assert report["metrics"]["i2l_4"]["prompt_accuracy"]["mean"] == 1.0
    for part in ("background", "figure", "outline", "overall"):
        own, bare = (report["metrics"][c][f"style_{part}"]["mean"] for c in ("i2l_4", "null"))
        assert own < 0.6 * bare


def test_better_painter_replaces_the_honest_one_and_not_the_reverse(report_of):
    champion, candidate = report_of(honest), report_of(better)
    assert refused_axes(candidate, champion) == set()
    assert "style" in refused_axes(champion, candidate)


def test_leaking_painter_is_refused_for_leaking(report_of):
    report = report_of(leaking)
    assert "leakage" in refused_axes(report)
    assert report["leakage"]["i2l_1"]["excess"]["mean"] == pytest.approx(0.5)


def test_copying_painter_is_refused_for_copying(report_of):
    assert {"copying", "prompt"} <= refused_axes(report_of(copying))


def test_blurring_painter_is_refused_for_quality(report_of):
    assert "quality" in refused_axes(report_of(blurring))


def test_painter_that_ignores_references_is_refused_for_style(report_of):
    assert refused_axes(report_of(null)) == {"style", "loss"}


def test_one_failed_sample_is_refused(report_of):
    assert "robustness" in refused_axes(report_of(failing_once))
