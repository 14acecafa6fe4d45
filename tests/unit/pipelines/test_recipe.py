from pathlib import Path

import pytest
import yaml

from i2l_model.backbones.released import released
from i2l_model.errors import InputError
from i2l_model.predictor_sizes import full_size_config
from pipelines.recipe import RECIPE_FOLDER, dump_yaml, load_recipe, recipe_names

MICRO = Path(__file__).parents[2] / "assets" / "micro.yaml"


def test_shipped_recipes() -> None:
    assert recipe_names() == [
        "hidream-o1-64gpu", "hidream-o1-8gpu", "klein-base-4b-64gpu", "klein-base-4b-8gpu",
        "pictures", "quickstart", "stylegrid", "zimage-64gpu", "zimage-8gpu",
    ]  # fmt: skip


@pytest.mark.parametrize("name", recipe_names())
def test_a_shipped_recipe_has_its_name_and_survives_a_round_trip(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    copy = tmp_path / "copy.yaml"
    copy.write_text(dump_yaml(recipe))
    assert load_recipe(str(copy)) == recipe


@pytest.mark.parametrize("name", recipe_names())
def test_mining_keeps_as_many_styles_for_the_evaluation_as_it_asks_for(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.mining.split.min_test_styles >= recipe.evaluation.num_styles
    assert recipe.acceptance.min_styles["test"] >= recipe.evaluation.num_styles
    assert recipe.acceptance.min_styles["train"] >= recipe.training.styles_per_step


@pytest.mark.parametrize("name", recipe_names())
def test_the_gate_asks_for_conditions_that_the_evaluation_measures(name: str) -> None:
    recipe = load_recipe(name)
    measured = {f"i2l_{number}" for number in recipe.evaluation.num_refs}
    assert set(recipe.gate.conditions) <= measured


def test_the_longer_training_is_asked_for_few_leaks_outright() -> None:
    assert load_recipe("stylegrid").gate.max_leakage == 0.03


@pytest.mark.parametrize("num_gpus", [8, 64])
@pytest.mark.parametrize(
    ("family", "backbone"),
    [
        ("zimage", "z-image"),
        ("klein-base-4b", "flux.2-klein-base-4b"),
        ("hidream-o1", "hidream-o1"),
    ],
)
def test_a_full_size_recipe_trains_the_full_size_predictor(
    family: str, backbone: str, num_gpus: int
) -> None:
    recipe = load_recipe(f"{family}-{num_gpus}gpu")
    training = recipe.training
    assert training.backbone == released(backbone).hub_id
    assert training.num_workers == num_gpus
    assert training.steps * training.styles_per_step == 1_600_000
    predictor = training.predictor
    sizes = {"version", "rank", "dim", "depth", "num_heads", "compress_dim", "queries_per_factor"}
    expected = full_size_config(backbone).model_dump(include=sizes)
    assert predictor.model_dump(include=sizes) == expected
    assert predictor.encoder.path_or_id == "google/siglip2-giant-opt-patch16-384"
    assert not predictor.encoder.trainable
    assert predictor.dinov3 is None


def write_recipe(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def test_a_recipe_may_extend_another_one(tmp_path: Path) -> None:
    write_recipe(
        tmp_path / "first.yaml",
        "extends: quickstart\nname: first\ntraining: {steps: 7, sigma_focus: []}",
    )
    path = write_recipe(
        tmp_path / "second.yaml",
        "extends: ./first.yaml\nname: second\ntraining: {predictor: {rank: 2}}",
    )
    recipe, quickstart = load_recipe(path, ["training.seed=5"]), load_recipe("quickstart")
    assert (recipe.name, recipe.mining) == ("second", quickstart.mining)
    predictor = quickstart.training.predictor.model_copy(update={"rank": 2})
    changes = {"steps": 7, "sigma_focus": (), "predictor": predictor, "seed": 5}
    assert recipe.training == quickstart.training.model_copy(update=changes)


@pytest.mark.parametrize(
    ("base", "expected"),
    [
        ("quikstart", "extends (quikstart) is unknown; use one of"),
        ("./none.yaml", "extends (./none.yaml) is no file; check the path"),
        ("./mine.yaml", "extends (./mine.yaml) leads"),
        ("./other.yaml", "extends (./mine.yaml) leads"),
        ("[quickstart]", "is no name in"),
    ],
)
def test_a_base_that_is_no_recipe_is_named(base: str, expected: str, tmp_path: Path) -> None:
    path = write_recipe(tmp_path / "mine.yaml", f"extends: {base}")
    write_recipe(tmp_path / "other.yaml", "extends: ./mine.yaml")
    with pytest.raises(InputError) as caught:
        load_recipe(path)
    assert expected in str(caught.value)


def test_overrides_reach_nested_settings() -> None:
    recipe = load_recipe("quickstart", ["training.steps=7", "evaluation.num_refs=[2]"])
    assert recipe.training.steps == 7
    assert recipe.evaluation.num_refs == (2,)


def test_contents_that_the_corpus_holds_back_may_be_asked_for() -> None:
    held_out = ["corpus.held_out_contents=[star, fish]", "evaluation.held_out_contents=[star]"]
    assert load_recipe("quickstart", held_out).evaluation.held_out_contents == ("star",)
    load_recipe("pictures", ["evaluation.held_out_contents=[star]"])


def test_a_path_is_a_recipe() -> None:
    assert load_recipe(str(MICRO)).name == "micro"


def test_an_unknown_recipe_lists_the_known_ones() -> None:
    with pytest.raises(InputError) as caught:
        load_recipe("quikstart")
    assert str(caught.value) == (
        f"--recipe (quikstart) is unknown; use one of {', '.join(recipe_names())}, "
        "or a path to a YAML file"
    )


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("training.steps=many", "training.steps (many) is invalid: should be a valid integer"),
        ("corpus.num_styles=0", "corpus.num_styles (0) is invalid: should be greater than or"),
        ("training.stepps=7", "training.stepps (7) is no setting; use one of:"),
        ("training=7", "training (7) is invalid:"),
        ("training.styles_per_step=1", "training.styles_per_step (1) must be >= num_workers"),
        (
            "evaluation.held_out_contents=[star]",
            "evaluation.held_out_contents (star) must be in corpus.held_out_contents; add it",
        ),
        (
            "evaluation.num_styles=31",
            "evaluation.num_styles (31) must be >= gate.min_num_styles (32); change either",
        ),
        ("corpus=null", "set exactly one of corpus and pack"),
    ],
)
def test_a_wrong_setting_is_named_on_one_line(override: str, expected: str) -> None:
    with pytest.raises(InputError) as caught:
        load_recipe("quickstart", [override])
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_gate_on_the_share_closed_needs_per_style_loras() -> None:
    with pytest.raises(InputError, match=r"style_lora_num_styles \(0\) must be >= 1"):
        load_recipe("stylegrid", ["evaluation.style_lora_num_styles=0"])


@pytest.mark.parametrize("text", ["a: [", "- a", "", "\xff"])
def test_a_file_that_is_no_recipe_is_named(text: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=r"mine\.yaml"):
        load_recipe(str(path))


def test_a_missing_file_is_named() -> None:
    with pytest.raises(InputError, match=r"no/such\.yaml.*is no file"):
        load_recipe("no/such.yaml")


def test_recipes_hold_no_keys_twice() -> None:
    for path in RECIPE_FOLDER.glob("*.yaml"):
        keys = [line.split(":")[0] for line in path.read_text().splitlines() if line[:1].isalpha()]
        assert len(keys) == len(set(keys)), path.name
        assert list(yaml.safe_load(path.read_text())) == keys
