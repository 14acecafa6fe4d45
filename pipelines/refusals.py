"""The outcome of a gate that says no."""

from collections.abc import Sequence


class Refused(Exception):
    """A gate refused to let the workflow go on; the command line exits with status 3.

    Args:
        subject: What was refused, on one line, e.g. "version 3 does not become champion".
        reasons: One line for every check that did not pass.
    """

    def __init__(self, subject: str, reasons: Sequence[str]) -> None:
        self.subject = subject
        self.reasons = tuple(reasons)
        super().__init__("; ".join([subject, *self.reasons]))
