import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from i2l_model.images import load_image
from i2l_model.lora.factors import LoraFactors
from i2l_model.lora.files import load_lora
from pipelines.cli.main import run

pytestmark = pytest.mark.usefixtures("workspace")


@pytest.fixture
def predict(predictor_folder: Path, references: list[str], tmp_path: Path) -> "Predict":
    return Predict(predictor_folder, references, tmp_path / "style.safetensors")


class Predict:
    """`i2l predict` with the small predictor."""

    def __init__(self, predictor: Path, references: list[str], output: Path) -> None:
        self.predictor, self.references, self.output = predictor, references, output

    def __call__(self, *options: str, images: list[str] | None = None) -> int:
        images = self.references[:2] if images is None else images
        return run(
            ["predict", *images, "--predictor", str(self.predictor), "--output", str(self.output),
             *options]
        )  # fmt: skip

    def factors(self, *options: str, images: list[str] | None = None) -> LoraFactors:
        assert self(*options, images=images) == 0
        return load_lora(self.output)[0]


def first_delta(factors: LoraFactors) -> torch.Tensor:
    return factors.delta(next(iter(factors.lora_A)))


@pytest.mark.parametrize(
    ("name", "prefix"),
    [("diffusers", "transformer."), ("peft", "base_model."), ("comfyui", "diffusion_model.")],
)
def test_predict_writes_the_format_that_was_asked_for(
    predict: Predict, name: str, prefix: str
) -> None:
    from safetensors import safe_open

    assert predict("--format", name) == 0
    with safe_open(predict.output, "pt") as file:
        assert all(key.startswith(prefix) for key in file.keys())  # noqa: SIM118


def test_the_shipped_predictor_is_the_default_and_gives_each_style_a_lora_of_its_own(
    references: list[str], tmp_path: Path
) -> None:
    files = [tmp_path / f"{n}.safetensors" for n in range(2)]
    for image, file in zip(references, files, strict=False):
        assert run(["predict", image, "--output", str(file)]) == 0
    first, second = (load_lora(file) for file in files)
    assert first[1]["i2l.backbone"] == "tiny-zimage"
    assert first_delta(first[0]).isfinite().all()
    assert not torch.allclose(first_delta(first[0]), first_delta(second[0]))


def test_a_place_that_cannot_be_written_is_named(
    predictor_folder: Path, references: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    output = "/proc/nope/style.safetensors"
    options = ["--predictor", str(predictor_folder), "--output", output]
    assert run(["predict", references[0], *options]) == 2
    assert f"output ({output}) cannot be written" in capsys.readouterr().err


def test_the_file_says_where_it_comes_from(predict: Predict) -> None:
    assert predict("--strength", "0.5", "--weights", "2", "1") == 0
    _, metadata = load_lora(predict.output)
    assert metadata["i2l.backbone"] == "random-zimage"
    assert json.loads(metadata["i2l.references"]) == ["0.png", "1.png"]
    assert json.loads(metadata["i2l.weights"]) == [2.0, 1.0]
    assert float(metadata["i2l.strength"]) == 0.5
    assert metadata["i2l.rank"] == "2"
    files = [Path(path) for path in predict.references[:2]]
    hashes = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    assert json.loads(metadata["i2l.references_sha256"]) == hashes
    weights = hashlib.sha256((predict.predictor / "model.safetensors").read_bytes()).hexdigest()
    assert metadata["i2l.predictor"] == f"{predict.predictor.name} sha256:{weights}"


def test_strength_scales_the_update(predict: Predict) -> None:
    full, half = first_delta(predict.factors()), first_delta(predict.factors("--strength", "0.5"))
    assert full.abs().max() > 0
    torch.testing.assert_close(half, 0.5 * full)


def test_weights_move_the_style_between_the_references(predict: Predict) -> None:
    first, second = predict.references[:2]
    only_first = first_delta(predict.factors(images=[first]))
    both = first_delta(predict.factors(images=[first, second]))
    weighted = first_delta(predict.factors("--weights", "1", "0", images=[first, second]))
    assert not torch.allclose(both, only_first)
    torch.testing.assert_close(weighted, only_first)


def test_one_reference_that_is_no_image_fails_all_before_anything_is_written(
    predict: Predict, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "notes.png"
    broken.write_text("no picture")
    predict.output = tmp_path / "new" / "style.safetensors"
    assert predict(images=[predict.references[0], str(broken)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert str(broken) in lines[0]
    assert "replace it" in lines[0]
    assert not predict.output.parent.exists()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--weights", "1"], "--weights"),
        (["--weights", "0", "0"], "--weights"),
        (["--weights", "nan", "1"], "--weights"),
        (["--strength", "inf"], "--strength"),
        (["--strength", "1e39"], "--strength (1e+39) is too large"),
        (["--format", "onnx"], "--format"),
        (["--output", "style.bin"], "--output"),
        (["--predictor", "no-such-folder"], "--predictor"),
        (["--predictor", "models:/i2l-x@champion"], "has no registry"),
    ],
)
def test_a_wrong_option_is_one_line_and_exit_2(
    predict: Predict, options: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict(*options) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert named in lines[0]
    assert not predict.output.exists()


def test_too_many_references_are_refused(
    predict: Predict, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict(images=[predict.references[0]] * 4) == 2
    assert "must be at most 3" in capsys.readouterr().err


def test_a_folder_without_weights_is_no_predictor(
    predict: Predict, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict("--predictor", str(tmp_path)) == 2
    assert "has no config.json" in capsys.readouterr().err


@pytest.fixture
def generated(predict: Predict, backbone_folder: Path, tmp_path: Path) -> "Generate":
    return Generate(predict, backbone_folder, tmp_path)


class Generate:
    """`i2l generate` at its smallest."""

    def __init__(self, predict: Predict, backbone: Path, root: Path) -> None:
        self.predict, self.backbone, self.root = predict, backbone, root

    @property
    def references(self) -> list[str]:
        refs = self.predict.references[:2]
        return ["--ref", *refs, "--predictor", str(self.predict.predictor)]

    def run(self, name: str, *options: str) -> int:
        return run(
            ["generate", "--prompt", "a house", "a cat!", "--output", str(self.root / name),
             "--steps", "2", "--backbone", str(self.backbone), *options]
        )  # fmt: skip

    def __call__(self, name: str, *options: str) -> Path:
        assert self.run(name, *options) == 0
        return self.root / name

    def from_references(self, name: str, *options: str) -> Path:
        return self(name, *self.references, *options)


def pixels(folder: Path, name: str) -> bytes:
    return load_image(folder / name).tobytes()


STYLED, PLAIN = "000-a-house.png", "000-a-house-unstyled.png"


def test_generate_writes_both_pictures_of_every_prompt_and_a_grid(generated: Generate) -> None:
    folder = generated.from_references("a")
    assert sorted(path.name for path in folder.iterdir()) == [
        PLAIN, STYLED, "001-a-cat-unstyled.png", "001-a-cat.png", "grid.png"
    ]  # fmt: skip
    assert pixels(folder, STYLED) != pixels(folder, PLAIN)
    grid = Image.open(folder / "grid.png")
    assert grid.height > 3 * 192  # references, with the style, without


def test_the_seed_decides(generated: Generate) -> None:
    one, same = generated.from_references("a"), generated.from_references("b")
    other = generated.from_references("c", "--seed", "1")
    assert pixels(one, STYLED) == pixels(same, STYLED)
    assert pixels(one, STYLED) != pixels(other, STYLED)


def test_no_strength_draws_the_unstyled_picture(generated: Generate) -> None:
    folder = generated.from_references("a", "--strength", "0")
    assert pixels(folder, STYLED) == pixels(folder, PLAIN)


def test_a_lora_file_draws_what_its_references_draw(generated: Generate) -> None:
    assert generated.predict() == 0
    from_file = generated("a", "--lora", str(generated.predict.output))
    assert pixels(from_file, STYLED) == pixels(generated.from_references("b"), STYLED)


def test_the_negative_branch_carries_what_is_asked_for(generated: Generate) -> None:
    kinds = ("positive_only", "neutral_negative", "symmetric")
    folders = [
        generated.from_references(kind, "--guidance", "3", "--negative", kind) for kind in kinds
    ]
    assert len({pixels(folder, STYLED) for folder in folders}) == 3
    assert len({pixels(folder, PLAIN) for folder in folders}) == 1
    off = generated.from_references("off", "--negative", "neutral_negative")
    assert pixels(off, STYLED) == pixels(generated.from_references("plain"), STYLED)


def test_a_picture_that_cannot_be_written_is_named_before_any_is(
    generated: Generate, capsys: pytest.CaptureFixture[str]
) -> None:
    taken = generated.root / "a" / "grid.png"
    taken.mkdir(parents=True)
    assert generated.run("a", *generated.references) == 2
    assert f"--output ({taken}) is a folder" in capsys.readouterr().err
    assert list(taken.parent.iterdir()) == [taken]
    file = generated.root / "file"
    file.touch()
    assert generated.run("file", *generated.references) == 2
    assert f"--output ({file}) cannot be written" in capsys.readouterr().err


def test_a_backbone_that_is_not_here_is_asked_for(
    generated: Generate, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert generated.predict() == 0
    lora = ["--lora", str(generated.predict.output)]
    arguments = ["generate", "--prompt", "x", "--output", str(tmp_path / "o")]
    for style, owner in ((lora, "LoRA"), (generated.references, "predictor")):
        assert run([*arguments, *style]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert f"--backbone (random-zimage) is what the {owner} was made for" in line
        assert line.endswith("; give --backbone FOLDER")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--lora", "b.safetensors", "--negative", "neutral_negative"], "--negative"),
        ([], "--ref"),
        (["--ref", "a.png", "--lora", "b.safetensors"], "--ref"),
        (["--lora", "b.safetensors", "--weights", "1"], "--weights ([1.0]) does not go with"),
        (["--lora", "b.safetensors", "--predictor", "p"], "--predictor (p) does not go with"),
        (["--ref", "missing.png"], "missing.png"),
        (["--ref", "/tmp", "/usr"], "(/tmp) is a folder"),
        (["--lora", "missing.safetensors"], "missing.safetensors"),
        (["--lora", "missing.safetensors", "--guidance", "0.5"], "--guidance"),
        (["--lora", "missing.safetensors", "--seed", str(2**63)], "--seed"),
    ],
)
def test_generate_names_what_is_wrong(
    options: list[str], named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["generate", "--prompt", "x", "--output", str(tmp_path / "o"), *options]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert named in lines[0]
    assert not (tmp_path / "o").exists()


def test_folders_give_a_lora_each_as_they_would_alone(
    predictor_folder: Path,
    references: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, images in (("ink", references[:1]), ("oil", references[1:3])):
        (tmp_path / name).mkdir()
        for image in images:
            shutil.copy(image, tmp_path / name)
    folders = [str(tmp_path / name) for name in ("ink", "oil")]
    options = ["--predictor", str(predictor_folder), "--output"]
    assert run(["predict", *folders, *options, str(tmp_path / "loras")]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2
    for folder in folders:
        alone = tmp_path / "alone.safetensors"
        assert run(["predict", folder, *options, str(alone)]) == 0
        name = Path(folder).name
        found, metadata = load_lora(tmp_path / "loras" / f"{name}.safetensors")
        torch.testing.assert_close(first_delta(found), first_delta(load_lora(alone)[0]))
        names = sorted(path.name for path in Path(folder).iterdir())
        assert json.loads(metadata["i2l.references"]) == names


def test_peft_folders_hold_the_adapter(
    predictor_folder: Path, references: list[str], tmp_path: Path
) -> None:
    from peft import LoraConfig

    folder = Path(references[0]).parent
    options = ["--predictor", str(predictor_folder), "--format", "peft", "--output"]
    alone, each = tmp_path / "alone", tmp_path / "adapters"
    assert run(["predict", *references, *options, str(alone)]) == 0
    assert run(["predict", str(folder), *options, str(each)]) == 0
    loras = []
    for adapter in (alone, each / folder.name):
        names = sorted(path.name for path in adapter.iterdir())
        assert names == ["adapter_config.json", "adapter_model.safetensors"]
        assert LoraConfig.from_pretrained(str(adapter)).r == 2
        loras.append(load_lora(adapter)[0])
    torch.testing.assert_close(first_delta(loras[0]), first_delta(loras[1]))


def test_styles_that_cannot_be_told_apart_are_refused(
    predictor_folder: Path,
    references: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("a/ink", "b/ink", "none", "many", "odd", "odd/sub.png", "v.2"):
        (tmp_path / name).mkdir(parents=True)
    shutil.copy(references[0], tmp_path / "a/ink")
    shutil.copy(references[0], tmp_path / "b/ink")
    shutil.copy(references[0], tmp_path / "v.2")
    for number in range(5):
        shutil.copy(references[0], tmp_path / "many" / f"{number}.png")
    ink, same, none, many = (str(tmp_path / name) for name in ("a/ink", "b/ink", "none", "many"))
    odd, dotted, missing = (str(tmp_path / name) for name in ("odd", "v.2", "oil"))
    output, file = str(tmp_path / "loras"), str(tmp_path / "style.safetensors")
    for arguments, message in (
        ([ink, references[0], "--output", output], f"({references[0]}) is a file among folders"),
        ([ink, missing, "--output", output], f"({missing}) does not exist"),
        ([missing, "--output", output], f"({missing}) does not exist"),
        ([ink, odd, "--output", output], f"({odd}/sub.png) is a folder, not an image"),
        ([ink, "--output", f"{output}.bin"], "--output"),
        ([dotted, "--output", output, "--format", "peft"], f"({dotted}) has a dot"),
        ([references[0], "--output", output], "is no .safetensors file"),
        ([references[0], "--output", f"{output}.bin", "--format", "peft"], "--output"),
        ([ink, same, "--output", output], "has the name of another folder"),
        ([ink, same, "--output", file], "is one file for 2 styles"),
        ([ink, none, "--output", output], "holds no images"),
        ([ink, many, "--output", output], "; leave some out"),
        ([ink, "--output", output, "--weights", "1"], "are for the references of one style"),
    ):
        assert run(["predict", *arguments, "--predictor", str(predictor_folder)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert message in line
    assert not (tmp_path / "loras").exists()


@pytest.mark.parametrize("command", ["predict", "generate"])
def test_outputs_are_local(
    references: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    before = set(tmp_path.iterdir())
    inputs = {"predict": references[:1], "generate": ["--prompt", "x", "--ref", references[0]]}
    arguments = [command, *inputs[command], "--output"]
    assert run([*arguments, "s3://bucket/style.safetensors"]) == 2
    assert "--output (s3://bucket/style.safetensors) is no local file" in capsys.readouterr().err
    assert set(tmp_path.iterdir()) == before


def test_a_file_uri_is_the_path_behind_it(predict: Predict) -> None:
    path = predict.output
    predict.output = path.as_uri()
    assert predict() == 0
    load_lora(path)


def test_the_log_of_a_failure_holds_its_traceback(
    predict: Predict, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr("pipelines.prediction.write_loras", fail)
    assert predict() == 1
    said = capsys.readouterr().err
    assert "Traceback" not in said
    log = Path(said.rpartition("the log is in ")[2].strip())
    assert "RuntimeError: broken" in log.read_text()
    assert "Traceback" in log.read_text()
    log.unlink()
