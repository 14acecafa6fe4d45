"""The evaluation job on a tiny random backbone: report, gate, samples, resume."""

import json
import shutil

import pytest
import torch
from diffusers import ZImagePipeline
from safetensors.torch import load_file

from i2l_model.backbones.tiny import build_tiny_zimage
from i2l_model.errors import InputError
from i2l_model.lora.files import load_lora
from i2l_model.lora.injection import inject_lora
from i2l_model.lora.pipelines import adapted_modules
from i2l_model.predictor import LoraPredictor, PredictorConfig
from i2l_model.tower_config import EncoderConfig
from jobs.evaluation import workers
from jobs.evaluation.config import EvaluationConfig, GateConfig
from jobs.evaluation.gate import decide
from jobs.evaluation.run import run_evaluation
from jobs.registry.register import register_version
from jobs.registry.tracking import TrackingConfig
from jobs.registry.versions import ModelRegistry
from tests.grid_pairs import write_grid_pairs


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Folders of a random backbone and of a predictor whose LoRAs do something."""
    folder = tmp_path_factory.mktemp("models")
    backbone = build_tiny_zimage(seed=0, folder=folder / "backbone")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        predictor = LoraPredictor.build(
            PredictorConfig(
                backbone="tiny-zimage",
                targets=backbone.lora_targets(),
                rank=2,
                dim=32,
                depth=1,
                num_heads=2,
                compress_dim=8,
                encoder=EncoderConfig(hidden_size=32, num_layers=1, num_heads=2),
            )
        )
        for parameter in predictor.heads.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    predictor.save_pretrained(folder / "predictor")
    return str(folder / "backbone"), str(folder / "predictor")


def tiny_config(backbone: str, **changes) -> EvaluationConfig:
    settings = {
        "backbone": backbone,
        "num_styles": 4,
        "num_prompts": 2,
        "num_inference_steps": 2,
        "style_lora_num_styles": 2,
        "style_lora_steps": (1, 2),
        "style_lora_batch_size": 2,
        "loss_num_targets": 2,
        "bootstrap_num_samples": 100,
        "styles_per_chunk": 2,
        "num_workers": 0,
        "report_num_styles": 3,
        "sample_num_styles": 1,
        "prompt_reader": "backbone",
    }
    return EvaluationConfig.model_validate(settings | changes)


@pytest.fixture(scope="module")
def evaluated(models, tmp_path_factory):
    pairs = write_grid_pairs(tmp_path_factory.mktemp("pairs"))
    output = tmp_path_factory.mktemp("output")
    result = run_evaluation(tiny_config(models[0]), models[1], pairs, str(output))
    return pairs, output, result


def test_report_has_every_condition_and_part(evaluated):
    _, output, result = evaluated
    report = json.loads((output / "report.json").read_text())
    assert report == json.loads(json.dumps(result.report))
    assert list(report["metrics"]) == [
        "null", "wrong_refs", "i2l_1", "i2l_4", "style_lora", "real",
    ]  # fmt: skip
    for part in ("background", "figure", "outline", "texture", "overall", "references"):
        for condition in ("null", "i2l_1", "i2l_4", "style_lora"):
            estimate = report["metrics"][condition][f"style_{part}"]
            assert 0 < estimate["lo"] <= estimate["mean"] <= estimate["hi"]
        assert set(report["closed"][part]) == {"i2l_1", "i2l_4"}
    assert report["metrics"]["null"]["style_overall"]["n"] == 4 * 2
    assert report["metrics"]["style_lora"]["style_overall"]["num_styles"] == 2
    assert report["loss_high_sigma"]["i2l_4"]["n"] == 4 * 2
    assert report["speed"]["seconds"]["i2l_1"] > 0
    assert report["held_out"]["has_oracle"]
    assert not report["held_out"]["pairs_of_training"]  # a predictor without provenance


def test_conditions_differ_only_by_the_lora(evaluated):
    _, _, result = evaluated
    metrics = result.report["metrics"]
    distances = {metrics[c]["style_overall"]["mean"] for c in ("null", "i2l_1", "i2l_4")}
    assert len(distances) == 3


def test_page_needs_no_other_file(evaluated):
    _, output, _ = evaluated
    page = (output / "report" / "index.html").read_text()
    assert page.count("data:image/png;base64,") > 3 * 5
    assert "http" not in page.replace("https://", "http://").split("<details>")[0]
    assert 'src="' not in page.replace('src="data:', "")
    assert (output / "report" / "grid-0.png").stat().st_size > 0


def test_sample_loras_and_images_are_written(evaluated, models):
    _, output, _ = evaluated
    (file,) = (output / "samples" / "loras").iterdir()
    factors, metadata = load_lora(file)
    assert factors.num_loras == 1
    assert all(key.startswith("transformer.") for key in load_file(file))
    assert len(list((output / "samples" / "images").glob("*-i2l_4-*.png"))) == 2
    assert metadata


def test_random_predictor_is_refused_by_the_gate(evaluated):
    _, _, result = evaluated
    decision = decide(result.report, GateConfig())
    assert not decision.passed
    assert any(check.axis == "style" for check in decision.failed)
    assert not any("lacks" in check.reason for check in decision.checks)


def test_finished_evaluation_does_nothing(evaluated, models, monkeypatch):
    pairs, output, result = evaluated
    monkeypatch.setattr(workers.ChunkWorker, "evaluate", None)
    again = run_evaluation(tiny_config(models[0]), models[1], pairs, str(output))
    assert again.report == json.loads(json.dumps(result.report))


def test_killed_run_goes_on_with_the_missing_chunk(models, tmp_path, monkeypatch):
    pairs = write_grid_pairs(tmp_path / "pairs")
    config = tiny_config(models[0], style_lora_num_styles=0)
    whole = run_evaluation(config, models[1], pairs, str(tmp_path / "whole")).report

    evaluated: list[int] = []
    evaluate = workers.ChunkWorker.evaluate

    def killed_at_second(self, plan):
        if len(evaluated) == 1:
            raise KeyboardInterrupt
        evaluated.append(plan.index)
        return evaluate(self, plan)

    monkeypatch.setattr(workers.ChunkWorker, "evaluate", killed_at_second)
    with pytest.raises(KeyboardInterrupt):
        run_evaluation(config, models[1], pairs, str(tmp_path / "killed"))
    assert not (tmp_path / "killed" / "report.json").exists()

    def only_missing(self, plan):
        assert plan.index not in evaluated
        return evaluate(self, plan)

    monkeypatch.setattr(workers.ChunkWorker, "evaluate", only_missing)
    resumed = run_evaluation(config, models[1], pairs, str(tmp_path / "killed")).report
    for section in ("metrics", "loss_high_sigma", "leakage", "robustness"):
        assert resumed[section] == whole[section]


def test_pictures_without_labels_use_references_only(models, tmp_path):
    pairs = write_grid_pairs(tmp_path / "pairs", labelled=False)
    config = tiny_config(models[0], style_lora_num_styles=0)
    report = run_evaluation(config, models[1], pairs, str(tmp_path / "output")).report
    assert not report["held_out"]["has_oracle"]
    assert "style_overall" not in report["metrics"]["null"]
    assert report["metrics"]["i2l_4"]["style_references"]["mean"] > 0
    checks = decide(report, GateConfig()).checks
    assert any(check.name == "i2l_4/style_references/gain" for check in checks)
    assert not any("lacks" in check.reason for check in checks)


def test_missing_test_split_is_named(models, tmp_path):
    with pytest.raises(InputError, match=r"--pairs .* has no index\.parquet"):
        run_evaluation(tiny_config(models[0]), models[1], str(tmp_path), str(tmp_path / "out"))


def test_registered_sample_lora_loads_in_plain_diffusers_and_draws_what_injection_draws(
    evaluated, models, tmp_path
):
    _, output, _ = evaluated
    predictor = shutil.copytree(models[1], tmp_path / "predictor")
    (predictor / "provenance.json").write_text("{}")
    tracking = TrackingConfig().resolve(tmp_path / "mlflow")
    version = register_version(tracking, str(predictor), str(output / "report.json"))
    ModelRegistry(tracking).download_files(version, "samples/loras", tmp_path / "loras")
    (file,) = (tmp_path / "loras").iterdir()

    pipeline = ZImagePipeline.from_pretrained(models[0], dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    bare = draw_one(pipeline)
    factors, _ = load_lora(file)
    with inject_lora(pipeline.transformer, factors):
        injected = draw_one(pipeline)
    pipeline.load_lora_weights(str(file.parent), weight_name=file.name)
    (adapted,) = adapted_modules(pipeline.transformer).values()
    assert adapted == len(LoraPredictor.from_pretrained(models[1]).config.targets)
    torch.testing.assert_close(draw_one(pipeline), injected, atol=1e-4, rtol=0)
    assert (injected - bare).abs().max() > 1e-2


def draw_one(pipeline: ZImagePipeline) -> torch.Tensor:
    """(1,3,64,64) in [0,1], by diffusers' own sampler."""
    return pipeline(
        "a red house",
        height=64,
        width=64,
        num_inference_steps=2,
        guidance_scale=0.0,
        generator=torch.Generator().manual_seed(0),
        output_type="pt",
    ).images


@pytest.mark.usefixtures("ray_cluster")
def test_workers_measure_what_one_process_measures(evaluated, models, tmp_path):
    pairs, _, result = evaluated
    config = tiny_config(models[0], num_workers=2)
    report = run_evaluation(config, models[1], pairs, str(tmp_path)).report
    left, right = (r["metrics"]["i2l_4"]["style_overall"] for r in (report, result.report))
    assert left["mean"] == pytest.approx(right["mean"], abs=2e-3)
