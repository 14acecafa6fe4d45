"""Reads figures out of a report; what is missing or no number stays None through all sums."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

Report = Mapping[str, Any]


def look_up(report: Report, *path: str) -> Any:
    """The value at a path of keys, None where it ends early."""
    found: Any = report
    for key in path:
        if not isinstance(found, Mapping):
            return None
        found = found.get(key)
    return found


def number(value: Any) -> float | None:
    """A finite number as float; anything else, a bool or text too, is None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def metric_value(report: Report, condition: str, metric: str, field: str = "mean") -> float | None:
    """One field of a metric of a condition."""
    return number(look_up(report, "metrics", condition, metric, field))


def worst_decile(report: Report, condition: str, metric: str) -> float | None:
    """Style distance of the worst tenth of styles."""
    return number(look_up(report, "robustness", condition, "worst_decile", metric))


def minus(left: float | None, right: float | None) -> float | None:
    """Difference; None if either is missing."""
    return None if left is None or right is None else left - right


def times(left: float | None, right: float | None) -> float | None:
    """Product; None if either is missing."""
    return None if left is None or right is None else left * right


def ratio(left: float | None, right: float | None) -> float | None:
    """Quotient; None if either is missing or the divisor is zero."""
    return None if left is None or not right else left / right


def share_gone(null: float | None, own: float | None) -> float | None:
    """Share of the null's value that the condition no longer has."""
    rest = ratio(own, null)
    return None if rest is None else 1.0 - rest


def raised(value: float | None, share: float) -> float | None:
    """A value raised by a share of its size."""
    return None if value is None else value + share * abs(value)
