"""Text that can be written as UTF-8.

JSON may hold half of an emoji (U+D83D alone), and file names that are no UTF-8 come with their
bytes as lone surrogates. Neither can be encoded, so that one such text would end a whole job.
"""

import re

_SURROGATE = re.compile("[\ud800-\udfff]")


def replace_surrogates(text: str) -> str:
    """The text with U+FFFD, the replacement character, for every lone surrogate."""
    return _SURROGATE.sub("\ufffd", text)
