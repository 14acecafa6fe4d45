import pickle

import pytest

from i2l_model.errors import InputError


def test_message_names_field_value_problem_and_fix_on_one_line() -> None:
    error = InputError("--rank", 96, "must be <= 64", "lower the rank")

    assert str(error) == "--rank (96) must be <= 64; lower the rank"


def test_a_value_over_several_lines_stays_on_one_line() -> None:
    error = InputError("prompt", "a cat\n  on a\tmat", "is too long", "shorten it")

    assert str(error) == "prompt (a cat on a mat) is too long; shorten it"


def test_a_long_value_is_shortened_in_the_message_only() -> None:
    value = "x" * 5000
    error = InputError("caption", value, "is too long", "shorten it")

    assert len(str(error)) < 300
    assert str(error).endswith("xxx...) is too long; shorten it")
    assert error.value == value


def test_parts_survive_the_way_between_processes() -> None:
    error = InputError("--input", "s3://bucket/none", "does not exist", "check the URI")

    copy = pickle.loads(pickle.dumps(error))

    assert type(copy) is InputError
    assert (copy.field, copy.value, copy.problem, copy.fix) == (
        "--input",
        "s3://bucket/none",
        "does not exist",
        "check the URI",
    )
    assert str(copy) == str(error)


def test_is_caught_as_a_value_error() -> None:
    with pytest.raises(ValueError, match="does not exist"):
        raise InputError("--input", "none", "does not exist", "check the URI")
