"""Lists behind one option: ``--ref a.png b.png`` as well as ``--ref a.png --ref b.png``."""

from collections.abc import Callable, Sequence


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _is_value(text: str) -> bool:
    return not text.startswith("-")


# By command and option: which of the following words belong to the option. Only commands without
# arguments of their own may take any word.
_LISTS: dict[tuple[str, str], Callable[[str], bool]] = {
    ("generate", "--ref"): _is_value,
    ("generate", "--prompt"): _is_value,
    ("generate", "--weights"): _is_number,
    ("predict", "--weights"): _is_number,
}


def spread_lists(arguments: Sequence[str]) -> list[str]:
    """Repeat an option in front of each of its values, as the parser wants it.

    Args:
        arguments: What stands behind ``i2l`` on the command line.
    """
    command = arguments[0] if arguments else ""
    spread: list[str] = []
    option: str | None = None
    has_value = False
    for word in arguments:
        belongs = _LISTS.get((command, option)) if option else None
        if belongs and not word.startswith("--") and has_value and belongs(word):
            assert option is not None
            spread += [option, word]
            continue
        if word.startswith("--"):
            option, has_value = word, False
        elif option and not has_value:
            has_value = True
        else:
            option = None
        spread.append(word)
    return spread
