import pytest

from pipelines.cli.lists import spread_lists


@pytest.mark.parametrize(
    ("typed", "spread"),
    [
        (
            "generate --ref a.png b.png --prompt x",
            "generate --ref a.png --ref b.png --prompt x",
        ),
        (
            "generate --ref a.png --ref b.png c.png",
            "generate --ref a.png --ref b.png --ref c.png",
        ),
        ("generate --prompt x y --seed 3", "generate --prompt x --prompt y --seed 3"),
        (
            "predict a.png --weights 0.7 0.3 b.png --output o",
            "predict a.png --weights 0.7 --weights 0.3 b.png --output o",
        ),
        ("predict a.png --output o b.png", "predict a.png --output o b.png"),
        ("mine --input a b", "mine --input a b"),
        ("--help", "--help"),
        ("", ""),
    ],
)
def test_an_option_is_repeated_for_each_of_its_values(typed: str, spread: str) -> None:
    assert spread_lists(typed.split()) == spread.split()


def test_prompts_with_spaces_stay_whole() -> None:
    assert spread_lists(["generate", "--prompt", "a house", "a cat"]) == [
        "generate", "--prompt", "a house", "--prompt", "a cat"
    ]  # fmt: skip
