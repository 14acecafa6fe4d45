import pytest
from pydantic import BaseModel, Field, ValidationError, model_validator

from i2l_model.errors import InputError
from pipelines.overrides import apply_overrides, validation_problem


class Inner(BaseModel, extra="forbid"):
    steps: int = Field(1, description="Optimizer steps.")
    rank: int = 4

    @model_validator(mode="after")
    def _check(self) -> "Inner":
        if self.rank > 8:
            raise ValueError(f"rank ({self.rank}) must be <= 8; lower it")
        return self


class Outer(BaseModel, extra="forbid"):
    name: str
    inner: Inner = Inner()
    maybe: Inner | None = None


def test_values_get_their_yaml_types_and_the_later_one_wins() -> None:
    changed = apply_overrides(
        {"a": {"b": 1, "c": 2}},
        ["a.b=3", "a.b=4", "x.y=[1, 4]", "z=true", "n=null", "t=a=b", "f=5e-4"],
    )
    assert changed == {
        "a": {"b": 4, "c": 2}, "x": {"y": [1, 4]}, "z": True, "n": None, "t": "a=b", "f": "5e-4"
    }  # fmt: skip


def test_settings_are_not_changed_in_place() -> None:
    settings = {"a": {"b": 1}}
    apply_overrides(settings, ["a.b=2", "a.c=3"])
    assert settings == {"a": {"b": 1}}


def test_a_missing_part_is_made() -> None:
    assert apply_overrides({"a": None}, ["a.b=1"]) == {"a": {"b": 1}}


@pytest.mark.parametrize("item", ["steps", "=3", "a..b=3", ".a=1", "a=[1", "a.b.c=1"])
def test_a_malformed_item_is_named(item: str) -> None:
    with pytest.raises(InputError) as caught:
        apply_overrides({"a": {"b": 1}}, [item])
    assert caught.value.field == "--set"
    assert item in str(caught.value)


def problem_of(data: dict[str, object]) -> str:
    with pytest.raises(ValidationError) as caught:
        Outer.model_validate(data)
    return str(validation_problem(caught.value, Outer, "my.yaml"))


def test_a_wrong_type_names_field_value_and_fix() -> None:
    line = problem_of({"name": "x", "inner": {"steps": "many"}})
    assert line.startswith("inner.steps (many) is invalid: should be a valid integer")
    assert "my.yaml" in line
    assert "--set inner.steps=VALUE" in line
    assert "Optimizer steps" in line
    assert "\n" not in line


def test_an_unknown_setting_lists_its_neighbours() -> None:
    assert problem_of({"name": "x", "inner": {"step": 3}}) == (
        "inner.step (3) is no setting; use one of: rank, steps"
    )


def test_neighbours_are_found_in_optional_parts() -> None:
    assert "use one of: rank, steps" in problem_of({"name": "x", "maybe": {"step": 3}})


def test_a_missing_setting_is_named() -> None:
    assert problem_of({}) == "name (missing) is required; add it to my.yaml"


def test_a_check_across_settings_keeps_its_own_words() -> None:
    assert (
        problem_of({"name": "x", "inner": {"rank": 9}}) == "inner.rank (9) must be <= 8; lower it"
    )


def test_further_problems_are_counted() -> None:
    assert "(and 1 more)" in problem_of({"inner": {"steps": "many"}})
