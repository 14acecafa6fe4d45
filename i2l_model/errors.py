"""Errors that report a problem the user can fix."""

from typing import Any


class InputError(ValueError):
    """Input which the user has to change: a file, a flag or a configuration value.

    The message is one line, ``field (value) problem; fix``, and names what to change. The command
    line prints it without a traceback and exits with status 2.

    Args:
        field: What was set, as the user knows it: a flag, a configuration key, a file role.
        value: The value it had. Long values are shortened in the message.
        problem: What is wrong, phrased to follow the value, e.g. "does not exist".
        fix: What to do about it, as an imperative.
    """

    max_value_length = 200

    def __init__(self, field: str, value: object, problem: str, fix: str) -> None:
        self.field = field
        self.value = value
        self.problem = problem
        self.fix = fix
        super().__init__(f"{field} ({self._shorten(value)}) {problem}; {fix}")

    def __reduce__(self) -> tuple[Any, ...]:
        """Rebuild from the four parts, so that the error survives the way between processes."""
        return type(self), (self.field, self.value, self.problem, self.fix)

    @classmethod
    def _shorten(cls, value: object) -> str:
        text = " ".join(str(value).split())
        if len(text) <= cls.max_value_length:
            return text
        return text[: cls.max_value_length - 3] + "..."
