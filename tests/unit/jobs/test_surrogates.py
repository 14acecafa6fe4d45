from jobs.surrogates import replace_surrogates


def test_halves_go_and_whole_characters_stay() -> None:
    assert replace_surrogates("a dog \ud83d") == "a dog \ufffd"
    assert replace_surrogates("f\udcfcr") == "f\ufffdr"
    assert replace_surrogates("a dog \N{DOG FACE}, für") == "a dog \N{DOG FACE}, für"
